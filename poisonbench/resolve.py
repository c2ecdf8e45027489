"""From names and overrides to cells in which nothing is left to be filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from poisonbench import registry
from poisonbench.arguments import full_name, split_tasks, split_variant
from poisonbench.cell import Cell, PluginChoice
from poisonbench.errors import UserError, did_you_mean
from poisonbench.settings import validated
from poisonbench.source import source_hash
from poisonbench.tier import Tier, load_tier, override

Kind = Literal["attack", "defense"]
Plugin = tuple[type[Any], PluginChoice]

TIER_SECTIONS = ("data", "model", "recipe")
SECTIONS = ("attack", "defense", *TIER_SECTIONS)
DEVICES = ("auto", "cpu", "cuda")
ALL, ALL_VARIANTS = "all", "all:variants"


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Attributes:
        attacks: names, names with a variant ("backdoor_blended:stripes"), "all" for the default of each, or "all:variants"
            for every variant too.
        defenses: likewise.
        tier: a tier's name or the path of a YAML file.
        seeds: one cell per attack, defence and seed.
        settings: dotted fields to override; ``attack.rate`` is set in every named attack that has a ``rate``.
        data: replaces the tier's pairs.
        evaluation: replaces the tier's tasks.
        device: "auto", "cpu" or "cuda".
    """

    attacks: Sequence[str] = ("none",)
    defenses: Sequence[str] = ("none",)
    tier: str = "clipart"
    seeds: Sequence[int] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    evaluation: str | None = None
    device: str = "auto"


def resolve(request: Request) -> list[Cell]:
    """The cells of ``request``: attacks, then defences, then seeds, in the order they were named.

    Raises:
        UserError: for an unknown name or field, a value of the wrong type, missing data or a missing device.
    """
    if any(seed < 0 for seed in request.seeds):
        raise UserError(f"seed {min(request.seeds)}: seeds are whole numbers from 0")
    settings = _by_section(request.settings)
    tier = _tier(request, settings)
    attacks = _plugins("attack", request.attacks, tier.attacks, settings["attack"], tier.name)
    defenses = _plugins("defense", request.defenses, tier.defenses, settings["defense"], tier.name)
    _check_splits(tier, [plugin for plugin, _ in defenses])
    device, data = _device(request.device), _data(tier)
    # Plugins' fields are resolved now, and prose decides nothing: left in, they would change every identity.
    tier = tier.model_copy(update={"attacks": {}, "defenses": {}, "summary": ""})
    return [
        Cell(
            attack=attack,
            defense=defense,
            tier=tier,
            data=data,
            seed=seed,
            device=device,
            source=source_hash(a, d),
        )
        for a, attack in attacks
        for d, defense in defenses
        for seed in dict.fromkeys(request.seeds)
    ]


def _by_section(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for path, value in settings.items():
        section, _, rest = path.partition(".")
        if section not in SECTIONS:
            raise UserError(f"--set {path}: no section '{section}'; {did_you_mean(section, SECTIONS)}")
        if not rest:
            raise UserError(f"--set {path}: name a field of the section, as in {section}.FIELD=VALUE")
        found[section][rest] = value
    return found


def _tier(request: Request, settings: Mapping[str, Mapping[str, Any]]) -> Tier:
    changes = {
        f"{section}.{path}": value for section in TIER_SECTIONS for path, value in settings[section].items()
    }
    if request.data is not None:
        if not request.data.strip():
            raise UserError("--data is empty; give a folder, hf:NAME or wds:SHARDS")
        changes["data.source"] = request.data
    if request.evaluation is not None:
        changes["data.evaluation"] = tuple(split_tasks(request.evaluation))
    tier = override(load_tier(request.tier), changes)
    if not re.fullmatch(r"\w[\w.-]*", tier.name):
        raise UserError(
            f"tier '{tier.name}': a tier's name has only letters, digits, '.', '-' and '_'; it names folders"
        )
    if tier.data.source == "none":
        raise UserError(
            f"tier '{tier.name}' has no data of its own; give it some, as in --data path/to/folder"
        )
    return tier


def _data(tier: Tier) -> str:
    from poisonbench.sources.stamp import stamp

    return stamp(tier.data)


def _plugins(
    kind: Kind,
    names: Sequence[str],
    at_tier: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    tier: str,
) -> list[Plugin]:
    found = {text: _registry(kind).find(text) for text in _expanded(kind, names)}
    _check_named(kind, {plugin.name for plugin, _ in found.values()}, at_tier, tier)
    known = {field for plugin, _ in found.values() for field in plugin.Config.model_fields}
    for path in settings:
        if path.split(".")[0] not in known:
            raise UserError(f"--set {kind}.{path}: {_no_such_field(kind, path, found, known)}")
    return [
        (plugin, _choice(kind, plugin, variant, at_tier, settings, tier))
        for plugin, variant in found.values()
    ]


def _check_named(kind: Kind, names: set[str], at_tier: Iterable[str], tier: str) -> None:
    """A tier's fields for a plugin or a variant that does not exist would never be used."""
    known = _registry(kind).names()
    for key in at_tier:
        name = split_variant(key)[0]
        if name not in known:
            raise UserError(f"tier '{tier}': unknown {kind} '{name}'; {did_you_mean(name, known)}")
        if ":" in key and name in names:
            try:
                _registry(kind).find(key)
            except UserError as error:
                raise UserError(f"tier '{tier}': {error}") from None


def _check_splits(tier: Tier, defenses: Iterable[type[Any]]) -> None:
    """An empty split would be noticed when the undefended model has been trained for nothing."""
    if tier.data.source == "clipart":
        return
    for plugin in defenses:
        for split in plugin.card.splits:
            if not getattr(tier.data, split):
                raise UserError(
                    f"defense '{plugin.name}' needs {split} pairs, and data.{split} is 0; "
                    f"set a share of the pairs apart, as in --set data.{split}=0.05"
                )


def _choice(
    kind: Kind,
    plugin: type[Any],
    variant: str,
    at_tier: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    tier: str,
) -> PluginChoice:
    """Defaults, then the tier's fields, then the preset's, then the tier's for this variant, then the person's."""
    config: type[BaseModel] = plugin.Config
    name = full_name(plugin.name, variant)
    values = config().model_dump()
    for fields, where in (
        (at_tier.get(plugin.name, {}), f"tier '{tier}', {kind} '{plugin.name}'"),
        (plugin.presets[variant] if variant else {}, f"{kind} '{name}'"),
        (at_tier.get(name, {}) if variant else {}, f"tier '{tier}', {kind} '{name}'"),
    ):
        values = validated(config, values | dict(fields), where).model_dump()
    for path, value in settings.items():
        if path.split(".")[0] in config.model_fields:
            _assign(values, path, value, kind)
    resolved = validated(config, values, f"{kind} '{name}'").model_dump(mode="json")
    return PluginChoice(name=plugin.name, config=resolved, variant=variant)


def _assign(values: dict[str, Any], path: str, value: Any, kind: Kind) -> None:
    *parents, leaf = path.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            raise UserError(
                f"--set {kind}.{path}: '{parent}' has no fields of its own; {did_you_mean(parent, values)}"
            )
        values = values[parent]
    values[leaf] = value


def _expanded(kind: Kind, names: Sequence[str]) -> list[str]:
    known = _registry(kind)
    if not names:
        raise UserError(f"--{kind}: name one; {did_you_mean('', known.names())}")
    several = {ALL: lambda: sorted(known.usable()), ALL_VARIANTS: known.variants}
    expanded = [one for name in names for one in (several[name]() if name in several else [name])]
    return list(dict.fromkeys(expanded))


def _registry(kind: Kind) -> registry.Registry[Any]:
    return registry.attacks() if kind == "attack" else registry.defenses()


def _no_such_field(kind: Kind, path: str, classes: Iterable[str], known: Iterable[str]) -> str:
    named = " and ".join(f"'{name}'" for name in classes)
    return f"unknown field of {kind} {named}; {did_you_mean(path.split('.')[0], known)}"


def _device(name: str) -> str:
    if name not in DEVICES:
        raise UserError(f"--device {name}: {did_you_mean(name, DEVICES)}")
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise UserError(
            "--device cuda: torch finds no GPU here; use --device cpu, or install a CUDA build of torch"
        )
    return "cpu"
