"""Reads the emoji catalogue: names, keywords, superclasses and concept keys."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.clipart.drawing import concept_key
from tools.clipart.hypernyms import EXCEPTIONS, SUBGROUPS

TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
GENDERLESS = {
    "1F468": "1F9D1",
    "1F469": "1F9D1",
    "1F474": "1F9D3",
    "1F475": "1F9D3",
    "1F466": "1F9D2",
    "1F467": "1F9D2",
    "1F385": "1F9D1-1F384",
    "1F936": "1F9D1-1F384",
    "1F934": "1FAC5",
    "1F478": "1FAC5",
    "1F930": "1FAC4",
    "1FAC3": "1FAC4",
    "1F46B": "1F46B",
    "1F46C": "1F46B",
    "1F46D": "1F46B",
    "1F483": "1F57A",
}
JOINERS = {"200D", "2640", "2642", "FE0F", "27A1", "2B05"}


@dataclass(frozen=True)
class Emoji:
    """One character of the catalogue; `base` is its code without a skin tone."""

    code: str
    base: str
    label: str
    tags: tuple[str, ...]
    concept: str
    hypernym: str
    plain: bool


def bare(code: str) -> str:
    """Drop the presentation selector, which vendors write or omit at will."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def genderless(code: str) -> str:
    """Map a code to one that its gender, tone and direction variants share."""
    if "-" not in code and code in JOINERS:
        return code
    parts = [part for part in code.split("-") if part not in JOINERS | TONES]
    return "-".join(GENDERLESS.get(part, part) for part in parts)


def read_catalogue(folder: Path) -> dict[str, Emoji]:
    """Read the English catalogue; return every emoji by its bare code."""
    entries = json.loads((folder / "en/data.json").read_text())
    messages = json.loads((folder / "en/messages.json").read_text())
    subgroups = {group["order"]: group["key"] for group in messages["subgroups"]}
    entries = [entry for entry in entries if "subgroup" in entry]
    concepts = _concepts(entries, subgroups)
    catalogue = {}
    for entry in entries:
        family = subgroups[entry["subgroup"]]
        for variant in [entry, *_single_tones(entry)]:
            emoji = _emoji(entry, variant, family, concepts)
            catalogue[emoji.code] = emoji
    return catalogue


def _single_tones(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [skin for skin in entry.get("skins", ()) if isinstance(skin["tone"], int)]


def _concepts(entries: list[dict[str, Any]], subgroups: dict[int, str]) -> dict[str, str]:
    """Name each genderless code after its shortest member, families apart."""
    members: dict[str, list[str]] = {}
    for entry in entries:
        label = entry["label"]
        if subgroups[entry["subgroup"]] in {"family", "person-symbol"}:
            label = label.partition(":")[0]
        members.setdefault(genderless(bare(entry["hexcode"])), []).append(label)
    return {code: concept_key(_neutral(labels)) for code, labels in members.items()}


def _neutral(labels: list[str]) -> str:
    neutral = [label for label in labels if not re.search(r"\b(wo)?m[ae]n\b", label)]
    return min(neutral or labels, key=lambda label: (len(label), label))


def _emoji(entry: dict[str, Any], variant: dict[str, Any], family: str, concepts: dict[str, str]) -> Emoji:
    base = bare(entry["hexcode"])
    neutral = re.sub(r"^(wo)?man ", "", entry["label"])
    hypernym = EXCEPTIONS.get(entry["label"]) or EXCEPTIONS.get(neutral) or SUBGROUPS[family]
    tags = tuple(tag.lower() for tag in entry.get("tags", ()) if tag.isascii() and len(tag) > 2)
    label = re.sub(r"^flag: ", "flag of ", variant["label"].replace("⊛ ", "").replace("’", "'"))
    concept = (
        concepts[genderless(base)].replace("flag ", "flag of ", 1) if "flag: " in variant["label"] else None
    )
    return Emoji(
        code=bare(variant["hexcode"]),
        base=base,
        label=label,
        tags=tags,
        concept=concept or concepts[genderless(base)],
        hypernym=hypernym,
        plain=variant is entry,
    )
