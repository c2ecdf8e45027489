"""What every plugin promises, whatever its kind."""

from __future__ import annotations

from poisonbench.conformance.check import Plugin, require
from poisonbench.errors import UserError
from poisonbench.registry import Kind, attack_contract, check_class, defense_contract


def kind_of(plugin: Plugin) -> Kind:
    """Whether a class is an attack or a defence.

    Raises:
        UserError: if it is neither.
    """
    if isinstance(plugin, type) and issubclass(plugin, attack_contract().base):
        return "attack"
    if isinstance(plugin, type) and issubclass(plugin, defense_contract().base):
        return "defense"
    raise UserError(f"{plugin!r} is neither an Attack nor a Defense; derive it from one of them")


def complete(plugin: Plugin) -> None:
    """The class has a docstring, a filled card, every method of its contract, and valid defaults."""
    check_class(plugin, attack_contract() if kind_of(plugin) == "attack" else defense_contract())
    documented = bool((vars(plugin).get("__doc__") or "").strip())
    require(documented, f"{plugin.__name__} has no docstring; say the idea in one sentence")
    for field in ("title", "paper"):
        require(bool(getattr(plugin.card, field).strip()), f"card.{field} is empty; '-' stands for no paper")


def config_round_trip(plugin: Plugin) -> None:
    """The configuration survives JSON, so that a record can name it."""
    config = plugin.Config()
    again = plugin.Config.model_validate_json(config.model_dump_json())
    require(again == config, f"written to JSON and read again, Config is {again!r} instead of {config!r}")


def unknown_field(plugin: Plugin) -> None:
    """A field that the configuration does not have is refused."""
    try:
        plugin({"no_such_field": 1})
    except UserError:
        return
    require(
        False, "Config accepts the unknown field 'no_such_field'; leave model_config as the base class has it"
    )
