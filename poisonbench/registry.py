"""Attacks and defences by name: found through entry points, imported only when they are asked for.

The suite's own plugins come through the same door as installed ones (``[project.entry-points]`` in
``pyproject.toml``). A colon parts a plugin's name from one of its presets, as in ``backdoor_blended:stripes``.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel

from poisonbench.arguments import full_name, split_variant
from poisonbench.errors import UserError, did_you_mean
from poisonbench.settings import validated

if TYPE_CHECKING:
    from poisonbench.attack import Attack
    from poisonbench.defense import Defense

Kind = Literal["attack", "defense"]
T = TypeVar("T")

OWN = "poisonbench"
"""The distribution whose plugins keep their names against all others."""

RESERVED = frozenset({"all"})
NAMING = (
    "a plugin's name is lower-case letters, digits and underscores, starts with a letter and is not 'all'"
)

log = logging.getLogger(__name__)


class Problem(NamedTuple):
    """A plugin that was declared but cannot be used as it was declared.

    Attributes:
        name: the entry point's name.
        distribution: the installed package that declares it.
        reason: one line for people.
    """

    name: str
    distribution: str
    reason: str


class Contract(NamedTuple, Generic[T]):
    """What a plugin class must be: a subclass of ``base`` with a ``card`` and a ``Config`` of these types.

    ``further`` raises UserError for what else is wrong with it.
    """

    base: type[T]
    card: type[BaseModel]
    config: type[BaseModel]
    further: Callable[[type[T]], None] = lambda plugin: None


class Registry(Generic[T]):
    """The plugins of one kind, from entry points; built with no import of any plugin.

    A name that is declared twice stays with the suite's own plugin, else with the first distribution by name.
    """

    def __init__(
        self, kind: Kind, entries: Iterable[EntryPoint], contract: Callable[[], Contract[T]]
    ) -> None:
        """``contract`` is called when the first plugin is imported."""
        self.kind = kind
        self._contract = contract
        self._refused: list[Problem] = []
        self._loaded: dict[str, type[T]] = {}
        self._broken: dict[str, Problem] = {}
        self._entries = self._resolve(entries)

    def names(self) -> list[str]:
        """The declared names, sorted; imports nothing, so that a name may turn out to be broken."""
        return sorted(self._entries)

    def declares(self, name: str) -> bool:
        """Whether a package declares a plugin of that name, even one that is refused."""
        return name in self._entries or any(problem.name == name for problem in self._refused)

    def get(self, name: str) -> type[T]:
        """The plugin class called ``name``, imported now if it was not before.

        Raises:
            UserError: for an unknown name, or a plugin that is broken.
        """
        if name not in self._entries:
            refusals = [f"'{name}' of {p.distribution}: {p.reason}" for p in self._refused if p.name == name]
            hint = refusals[0] if refusals else did_you_mean(name, self.names())
            raise UserError(f"unknown {self.kind} '{name}'; {hint}")
        found = self._load(name)
        if found is None:
            problem = self._broken[name]
            raise UserError(
                f"{self.kind} '{name}' of {problem.distribution} cannot be used: {problem.reason}"
            )
        return found

    def find(self, text: str) -> tuple[type[T], str]:
        """The plugin class and the preset that ``name`` or ``name:preset`` means; a name alone has the preset "".

        Raises:
            UserError: for an unknown name or preset, or a plugin that is broken.
        """
        name, variant = split_variant(text)
        plugin = self.get(name)
        presets = getattr(plugin, "presets", {})
        if variant not in presets and text != name:
            hint = did_you_mean(variant, presets) if presets else f"'{name}' has no variants"
            raise UserError(f"unknown variant '{variant}' of {self.kind} '{name}'; {hint}")
        return plugin, variant

    def variants(self) -> list[str]:
        """Every plugin that can be imported by its name, followed by its presets as ``name:preset``."""
        return [
            full_name(name, variant)
            for name, plugin in self.usable().items()
            for variant in ("", *sorted(getattr(plugin, "presets", {})))
        ]

    def usable(self) -> dict[str, type[T]]:
        """Every plugin that can be imported, by name; a broken one is left out with a warning."""
        return {name: plugin for name in self.names() if (plugin := self._load(name)) is not None}

    def problems(self) -> list[Problem]:
        """Everything that is wrong with the declared plugins, sorted; imports them all."""
        self.usable()
        return sorted([*self._refused, *self._broken.values()])

    def _resolve(self, entries: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
        kept: dict[str, EntryPoint] = {}
        for entry in sorted(entries, key=lambda e: (owner(e) != OWN, owner(e), e.name, e.value)):
            if not valid_name(entry.name):
                self._refuse(entry, NAMING)
            elif holder := kept.get(entry.name):
                self._refuse(entry, f"the name is taken by {owner(holder)}, whose plugin stays")
                if owner(holder) != OWN:
                    self._refuse(holder, f"{owner(entry)} declares the same name; this plugin stays")
            else:
                kept[entry.name] = entry
        return kept

    def _refuse(self, entry: EntryPoint, reason: str) -> None:
        self._refused.append(Problem(entry.name, owner(entry), reason))
        self._warn(self._refused[-1])

    def _load(self, name: str) -> type[T] | None:
        if name not in self._loaded and name not in self._broken:
            try:
                self._loaded[name] = self._checked(name)
            except UserError as error:
                self._broken[name] = Problem(name, owner(self._entries[name]), str(error))
                self._warn(self._broken[name])
        return self._loaded.get(name)

    def _checked(self, name: str) -> type[T]:
        contract, plugin = self._contract(), _imported(self._entries[name])
        if not (isinstance(plugin, type) and issubclass(plugin, contract.base)):
            raise UserError(f"{self._entries[name].value} is not a subclass of {contract.base.__name__}")
        check_class(plugin, contract)
        plugin.name = name  # type: ignore[attr-defined]
        return plugin

    def _warn(self, problem: Problem) -> None:
        log.warning("%s '%s' of %s: %s", self.kind, problem.name, problem.distribution, problem.reason)


def _imported(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does at import, the rest goes on
        log.debug("importing %s failed", entry.value, exc_info=True)
        reason = str(error).strip().splitlines() or ["no message"]
        raise UserError(f"importing {entry.value} failed with {type(error).__name__}: {reason[0]}") from None


def check_class(plugin: type[T], contract: Contract[T]) -> None:
    """Check that a plugin class is complete: nothing abstract, a card, a ``Config`` with valid defaults, and valid presets.

    Raises:
        UserError: names the first thing that is missing.
    """
    name, card, config = plugin.__name__, getattr(plugin, "card", None), getattr(plugin, "Config", None)
    if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
        raise UserError(f"{name} does not define {' and '.join(missing)}")
    if not isinstance(card, contract.card):
        raise UserError(f"{name} has no card; add 'card = {contract.card.__name__}(...)' to the class")
    if not (isinstance(config, type) and issubclass(config, contract.config)):
        raise UserError(f"{name}.Config is not a subclass of {contract.config.__name__}")
    contract.further(plugin)
    check_defaults(config)
    check_presets(plugin, config)


def check_defaults(config: type[BaseModel]) -> None:
    """Check that every field has a default, and that the defaults pass the fields' own rules.

    Raises:
        UserError: names the first wrong default.
    """
    defaults = validated(config, {}, "its defaults")
    validated(
        config, defaults.model_dump(warnings=False), "its defaults"
    )  # pydantic trusts defaults until asked


def check_presets(plugin: type[T], config: type[BaseModel]) -> None:
    """Check that every preset has a name that can be typed, and changes fields to values that they may have.

    Raises:
        UserError: names the first wrong preset.
    """
    defaults = config().model_dump()
    for name, fields in getattr(plugin, "presets", {}).items():
        if not valid_name(name):
            raise UserError(f"preset '{name}': a preset is named like a plugin: {NAMING}")
        validated(config, defaults | dict(fields), f"preset '{name}'")


def owner(entry: EntryPoint) -> str:
    """The normalised name of the distribution that declares ``entry``."""
    return re.sub(r"[-_.]+", "-", entry.dist.name).lower() if entry.dist else "an unknown distribution"


def valid_name(name: str) -> bool:
    """Whether ``name`` can be a plugin's, which also names folders and arguments of the command line."""
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and name not in RESERVED


@cache
def attacks() -> Registry[Attack]:
    """The attacks installed here."""
    return Registry("attack", entry_points(group="poisonbench.attacks"), attack_contract)


@cache
def defenses() -> Registry[Defense]:
    """The defences installed here."""
    return Registry("defense", entry_points(group="poisonbench.defenses"), defense_contract)


def refresh() -> None:
    """Forget what was found, so that the next question sees packages installed meanwhile."""
    importlib.invalidate_caches()
    attacks.cache_clear()
    defenses.cache_clear()


def attack_contract() -> Contract[Attack]:
    """The classes that an attack builds on."""
    from poisonbench.attack import Attack, AttackCard, AttackConfig

    return Contract(Attack, AttackCard, AttackConfig)  # type: ignore[type-abstract]


def defense_contract() -> Contract[Defense]:
    """The classes that a defence builds on."""
    from poisonbench.defense import Defense, DefenseCard, DefenseConfig, check_track

    return Contract(Defense, DefenseCard, DefenseConfig, check_track)
