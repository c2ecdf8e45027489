"""Tiers and plugins for a person who wants to choose one: their cards, fields and documentation."""

from __future__ import annotations

import inspect
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from poisonbench import registry
from poisonbench.arguments import full_name
from poisonbench.tier import load_tier, tier_names

MODULES = r"\b(?:[a-z_]+\.)+(?=\w)"


def tier_text(name: str) -> str:
    """The tier's declaration, as it was written.

    Raises:
        UserError: for an unknown name or a file that is not a valid tier.
    """
    load_tier(name)
    file = files("poisonbench.tiers").joinpath(f"{name}.yaml") if name in tier_names() else Path(name)
    return file.read_text(encoding="utf-8").rstrip()


def show_plugin(plugin: type[Any], variant: str, console: Console) -> None:
    """A plugin's name, documentation, card, presets, and every field of its configuration as ``variant`` has it."""
    name = full_name(plugin.name, variant)
    console.print(Text.assemble((name, "bold"), f"  ({plugin.card.title})\n"))
    console.print(Text(_reflowed(inspect.getdoc(plugin) or "")))
    console.print(Text("\ncard", style="bold"))
    console.print(_card(plugin.card))
    if plugin.presets:
        console.print(Text("\nvariants", style="bold"))
        console.print(_presets(plugin))
    console.print(Text("\nfields", style="bold"))
    changed = dict(plugin.presets[variant]) if variant else {}
    console.print(_fields(plugin.Config, changed) if plugin.Config.model_fields else Text("none"))


def show_all(console: Console) -> None:
    """Every attack, defence and tier with one line each, and what is wrong with the rest."""
    for title, found in (("attacks", registry.attacks()), ("defences", registry.defenses())):
        rows = [(name, summary_of(plugin)) for name, plugin in found.usable().items()]
        _section(title, rows, console)
    _section("tiers", [(name, load_tier(name).summary) for name in tier_names()], console)
    broken = [*registry.attacks().problems(), *registry.defenses().problems()]
    if broken:
        _section("problems", [(p.name, f"{p.distribution}: {p.reason}") for p in broken], console)


def summary_of(plugin: type[Any]) -> str:
    """The first sentence of a plugin's documentation, where it was published, and its variants."""
    first = " ".join((inspect.getdoc(plugin) or "").split("\n\n")[0].split())
    paper = "" if plugin.card.paper in ("", "-") else f" [{plugin.card.paper}, {plugin.card.year}]"
    variants = f" Variants: {', '.join(plugin.presets)}." if plugin.presets else ""
    return f"{first}{paper}{variants}"


def described(model: type[BaseModel]) -> dict[str, str]:
    """What the fields of ``model`` mean: their own descriptions, else the "Attributes" of its and its bases' docstrings."""
    lines: dict[str, str] = {}
    for base in reversed(model.__mro__):
        lines |= _attributes(inspect.cleandoc(vars(base).get("__doc__") or ""))
    return {name: info.description or lines.get(name, "") for name, info in model.model_fields.items()}


def _reflowed(text: str) -> str:
    """Paragraphs without the line breaks of the source; indented blocks stay as they are."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(p if "\n " in p or p.startswith(" ") else p.replace("\n", " ") for p in paragraphs)


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Attributes:\n")[2].splitlines():
        if not line.startswith("    "):
            break
        if start := re.match(r"    (\w+)(?: \([^)]*\))?: (.*)", line):
            name, found[start[1]] = start[1], start[2]
        elif name:
            found[name] += f" {line.strip()}"
    return found


def _card(card: BaseModel) -> Table:
    table = _plain_table()
    for name, value in card.model_dump().items():
        words = ", ".join(value) if isinstance(value, tuple) else str(value)
        table.add_row(name, Text(words or "-"))
    return table


def _presets(plugin: type[Any]) -> Table:
    table = _plain_table()
    for name, fields in plugin.presets.items():
        changes = ", ".join(f"{field}={_written(value)}" for field, value in fields.items())
        table.add_row(full_name(plugin.name, name), Text(changes))
    return table


def _fields(config: type[BaseModel], changed: dict[str, Any]) -> Table:
    table = _plain_table("field", "type", "default", "what it is")
    meanings = described(config)
    for name, info in config.model_fields.items():
        value = changed[name] if name in changed else info.get_default(call_default_factory=True)
        table.add_row(name, Text(_type(info)), Text(_written(value)), Text(meanings[name]))
    return table


def _type(info: FieldInfo) -> str:
    annotation = info.annotation
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    name = annotation.__name__ if type(annotation) is type else str(annotation)
    limits = [rule for rule in map(_rule, info.metadata) if rule]
    return f"{re.sub(MODULES, '', name)} {', '.join(limits)}".strip()


def _rule(metadata: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return ", ".join(
        f"{sign} {getattr(metadata, key)}" for key, sign in signs.items() if hasattr(metadata, key)
    )


def _written(value: Any) -> str:
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return (
        yaml.safe_dump(plain, default_flow_style=True).partition("\n")[0] if _is_yaml(plain) else str(plain)
    )


def _is_yaml(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float | dict | list)


def _section(title: str, rows: list[tuple[str, str]], console: Console) -> None:
    console.print(Text(title, style="bold"))
    table = _plain_table()
    for name, text in rows:
        table.add_row(f"  {name}", Text(text))
    console.print(table)
    console.print()


def _plain_table(*headers: str) -> Table:
    table = Table(*headers, box=None, show_header=bool(headers), padding=(0, 2, 0, 0), header_style="dim")
    for column in table.columns:
        column.overflow = "fold"
    return table
