"""Texts of the command line as values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from poisonbench.errors import UserError


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """``FIELD=VALUE`` texts as a mapping; values are YAML: 20, 0.02, true and [a, b] are what they look like.

    Raises:
        UserError: for a text without "=" or a value that is not YAML.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not path:
            raise UserError(f"--set {pair}: write FIELD=VALUE, for example recipe.epochs=20")
        try:
            found[path.strip()] = _value(text)
        except (yaml.YAMLError, ValueError):  # ValueError: what looks like a date or a number and is none
            raise UserError(
                f"--set {pair}: the value is not valid YAML; quote it or close its bracket"
            ) from None
    return found


def _value(text: str) -> Any:
    """``text`` as YAML; words are taken whole, where YAML would end them at a " #"."""
    value = yaml.safe_load(text) if text.strip() else text
    plain = isinstance(value, str) and not text.lstrip().startswith(("'", '"'))
    return text.strip() if plain else value


def parse_seeds(text: str) -> list[int]:
    """Seeds such as ``0``, ``0,1,2``, ``0-2`` or ``0-2,7``.

    Raises:
        UserError: for anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last - first > 9999:
            raise UserError(
                f"--seeds {text}: write whole numbers from 0, in ranges up to 10,000 the smaller first, for example 0,1,2 or 0-2"
            )
        seeds.extend(range(first, last + 1))
    return seeds


def split_names(texts: Iterable[str]) -> list[str]:
    """Names given one by one or separated by commas."""
    return [name for text in texts for part in text.split(",") if (name := part.strip())]


def split_tasks(text: str) -> list[str]:
    """Tasks separated by commas; a comma before anything but a task is part of a path."""
    parts = re.split(r",(?=\s*(?:folder:|clip-benchmark:|clipart\s*(?:,|$)))", text)
    return [task for part in parts if (task := part.strip())]


def full_name(name: str, variant: str) -> str:
    """A plugin's name, with its variant behind a colon if it has one."""
    return f"{name}:{variant}" if variant else name


def split_variant(text: str) -> tuple[str, str]:
    """The name and the variant of ``name:variant``; a name alone has the variant ""."""
    name, _, variant = text.partition(":")
    return name, variant
