"""Tables that give every drawing a readable superclass."""

import tomllib
from pathlib import Path

HERE = Path(__file__).parent
SUPERCLASSES = (
    "mammal", "bird", "bug", "sea animal", "fruit", "vegetable", "drink", "dish", "musical instrument",
    "tool", "piece of clothing", "ground vehicle", "boat", "aircraft", "building", "face", "hand", "worker",
    "athlete", "clock", "zodiac sign", "medical item", "sport",
)  # fmt: skip

KINDRED = {
    "animals": {"mammal", "bird", "bug", "sea animal", "reptile"},
    "food": {"fruit", "vegetable", "dish", "dessert", "drink", "kitchenware"},
    "transportation": {"boat", "aircraft"},
}
MIXED = {
    "recreation/holiday",
    "recreation/party",
    "recreation/toys",
    "transportation/vehicles",
    "people/clothing",
}


def _members(table: dict[str, list[str]]) -> dict[str, str]:
    """Turn a table round, so that each member names its superclass."""
    return {member: name for name, members in table.items() for member in members}


def _translations() -> dict[str, str]:
    """Read the Italian and French title words with their English meanings."""
    lines = (HERE / "foreign.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


_SECTIONS = tomllib.loads((HERE / "hypernyms.toml").read_text())
SUBGROUPS, EXCEPTIONS = _members(_SECTIONS["subgroups"]), _members(_SECTIONS["misfits"])
FOLDERS, TOPS = _members(_SECTIONS["folders"]), _members(_SECTIONS["tops"])
WORDS = _members(_SECTIONS["words"])
VAGUE, UNCOUNTED = set(_SECTIONS["hints"]["vague"]), set(_SECTIONS["hints"]["uncounted"])
FOREIGN = _translations()
