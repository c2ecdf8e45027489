"""Does a plugin keep its contract? Checks for ``poisonbench check NAME`` and for a plugin's own tests.

In a test::

    @pytest.mark.parametrize("check", checks_for("defense"), ids=str)
    def test_contract(check):
        check(MyDefense)

They run on a tiny data set made on the spot; defences train a tiny model in the suite's own loop.
"""

from __future__ import annotations

from poisonbench import registry
from poisonbench.conformance.check import Broken, Check, Plugin, Result
from poisonbench.conformance.common import kind_of
from poisonbench.errors import UserError, did_you_mean
from poisonbench.registry import Kind

__all__ = ["Broken", "Check", "Plugin", "Result", "check_plugin", "checks_for", "find_plugin"]


def checks_for(kind: Kind) -> list[Check]:
    """Everything that an attack or a defence promises, cheap checks first."""
    if kind == "attack":
        from poisonbench.conformance import attacks

        return attacks.CHECKS
    from poisonbench.conformance import defenses

    return defenses.CHECKS


def check_plugin(plugin: str | Plugin, kind: Kind | None = None) -> list[Result]:
    """Run every check on one plugin.

    Args:
        plugin: a registered name, or the class itself.
        kind: which of the two a name means, where an attack and a defence share it.

    Raises:
        UserError: for an unknown, broken or ambiguous name, or a class that is no plugin.
    """
    found = find_plugin(plugin, kind) if isinstance(plugin, str) else plugin
    return [check.result(found) for check in checks_for(kind_of(found))]


def find_plugin(name: str, kind: Kind | None = None) -> Plugin:
    """The attack or defence called ``name``.

    Raises:
        UserError: for a name that is unknown, broken, or both an attack's and a defence's.
    """
    if kind is not None:
        return registry.attacks().get(name) if kind == "attack" else registry.defenses().get(name)
    attacks, defenses = registry.attacks().names(), registry.defenses().names()
    if name in attacks and name in defenses:
        raise UserError(f"'{name}' is an attack and a defence; say which of them is meant")
    if name not in {*attacks, *defenses}:
        raise UserError(f"unknown plugin '{name}'; {did_you_mean(name, {*attacks, *defenses})}")
    return find_plugin(name, "attack" if name in attacks else "defense")
