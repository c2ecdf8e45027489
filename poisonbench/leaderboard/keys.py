"""What makes two records comparable, and what to call them where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from poisonbench.cell import without_places
from poisonbench.records import PluginUse, Record

# Prose, and plugin defaults that the plugins' resolved configurations already hold.
_NOT_SCALE = ("name", "summary", "attacks", "defenses")


def canonical(value: Any) -> str:
    """Equal for equal values, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, default=str)


def plugin_key(plugin: PluginUse) -> str:
    """A plugin with its whole configuration: the identity of a row or a column."""
    return canonical([plugin.name, plugin.config])


def scale(record: Record) -> dict[str, Any]:
    """Data with its fingerprint, model and recipe: what a record shares with all it may be compared to."""
    tier = record.config.get("tier")
    settings = tier if isinstance(tier, dict) else {}
    shared = {key: value for key, value in settings.items() if key not in _NOT_SCALE}
    return {**shared, "fingerprint": record.provenance.data}


def scale_key(record: Record) -> str:
    """The identity of a board: a tier's name, and what it was on that day."""
    return canonical([record.tier, without_places(scale(record))])


def differences(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each configuration the fields that are not the same in all.

    Returns:
        "field=value, ..." per configuration, empty where nothing differs.
    """
    flat = [flatten(config) for config in configs]
    fields = sorted({field for config in flat for field in config})
    telling = [field for field in fields if len({canonical(config.get(field)) for config in flat}) > 1]
    return [", ".join(_said(config, field) for field in telling) for config in flat]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted fields: {"recipe": {"lr": 1}} becomes {"recipe.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _said(config: Mapping[str, Any], field: str) -> str:
    if field not in config:
        return f"{field} unset"
    value = config[field]
    return f"{field}={value if isinstance(value, str) and value else json.dumps(value, default=str)}"
