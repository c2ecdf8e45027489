"""Does a plugin keep its contract? Checks for ``poisonbench check NAME`` and for a plugin's own tests.

In a test::

    @pytest.mark.parametrize("check", checks_for("defense"), ids=str)
    def test_contract(check):
        check(MyDefense)

They run on a tiny data set made on the spot; defences train a tiny model in the suite's own loop.
"""

from __future__ import annotations

from typing import Any

from poisonbench.arguments import split_variant
from poisonbench.conformance.check import Broken, Check, Plugin, Result
from poisonbench.conformance.common import kind_of
from poisonbench.errors import UserError, did_you_mean
from poisonbench.registry import Kind, Registry, attacks, defenses

__all__ = ["Broken", "Check", "Result", "check_plugin", "checks_for"]


def checks_for(kind: Kind) -> list[Check]:
    """Everything that an attack or a defence promises, cheap checks first."""
    if kind == "attack":
        from poisonbench.conformance.attack_checks import CHECKS
    else:
        from poisonbench.conformance.defense_checks import CHECKS
    return CHECKS


def check_plugin(plugin: str | Plugin) -> list[Result]:
    """Run every check on one plugin.

    Args:
        plugin: a registered name, or the class itself. A name that an attack and a defence share means both, and one of its
            variants the whole plugin.

    Raises:
        UserError: for a name that is unknown or belongs to a broken plugin, or a class that is no plugin.
    """
    plugins = _find(plugin) if isinstance(plugin, str) else [plugin]
    return [check.result(found) for found in plugins for check in checks_for(kind_of(found))]


def _find(name: str) -> list[Plugin]:
    registries: list[Registry[Any]] = [attacks(), defenses()]
    found = [plugins.find(name)[0] for plugins in registries if plugins.declares(split_variant(name)[0])]
    if not found:
        known = {other for plugins in registries for other in plugins.names()}
        raise UserError(f"unknown plugin '{name}'; {did_you_mean(name, known)}")
    return found
