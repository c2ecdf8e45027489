"""Collects emoji drawings from icon packages and names them after the catalogue."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.clipart.drawing import Drawing, draw
from tools.clipart.emoji import Emoji, bare

TRAINING = {
    "noto": "Apache-2.0",
    "noto-v1": "Apache-2.0",
    "twemoji": "CC-BY-4.0",
    "openmoji": "CC-BY-SA-4.0",
    "emojione": "CC-BY-4.0",
    "emojione-v1": "CC-BY-SA-4.0",
    "fxemoji": "Apache-2.0",
    "streamline-emojis": "CC-BY-4.0",
}
HELD_OUT = {"fluent-emoji-flat": "flat", "fluent-emoji": "shaded"}
NAMED_BY_CODE = ("noto", "twemoji", "openmoji")
INK = "#333333"


def slug(text: str) -> str:
    """Spell a name as icon packages do: lower-case ASCII words joined by hyphens."""
    folded = (
        text.lower().replace("’", "").replace("ñ", "n").replace("é", "e").replace("ã", "a").replace("ç", "c")
    )
    return "-".join(re.findall(r"[a-z0-9]+", folded))


def icon_set(folder: Path) -> dict[str, Any]:
    """Read the drawings of an icon package."""
    icons: dict[str, Any] = json.loads((folder / "icons.json").read_text())
    return icons


def characters(folder: Path) -> dict[str, str]:
    """Return the icon name of every character code that a package declares."""
    path = folder / "chars.json"
    chars = json.loads(path.read_text()) if path.exists() else {}
    return {bare(code): name for code, name in chars.items()}


def svg_of(icons: dict[str, Any], name: str) -> str:
    """Return an icon of a set as a stand-alone SVG document."""
    icon = icons["icons"][name]
    box = [
        icon.get(side, icons.get(side, default))
        for side, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    ]
    view = " ".join(f"{number:g}" for number in box)
    body = icon["body"].replace("currentColor", INK)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{box[2]:g}" height="{box[3]:g}" viewBox="{view}">{body}</svg>'
    )


def name_table(folders: dict[str, Path], catalogue: dict[str, Emoji]) -> dict[str, str]:
    """Return the code of every known spelling of an emoji's name, squashed ones included."""
    table: dict[str, str] = {}
    for emoji in catalogue.values():
        table.setdefault(slug(emoji.label), emoji.code)
        table.setdefault(slug(emoji.label.replace("flag of ", "flag for ")), emoji.code)
    for vendor in NAMED_BY_CODE:
        names = {
            name: code for code, name in sorted(characters(folders[vendor]).items()) if code in catalogue
        }
        aliases = icon_set(folders[vendor]).get("aliases", {})
        for alias, target in sorted(aliases.items()):
            if target["parent"] in names and set(target) == {"parent"}:
                names.setdefault(alias, names[target["parent"]])
        for name, code in names.items():
            table.setdefault(name, code)
    for name, code in sorted(table.items()):
        table.setdefault(name.replace("-", ""), code)
    return table


def _matches(folder: Path, names: dict[str, str], catalogue: dict[str, Emoji]) -> dict[str, str]:
    """Return the icon that draws each code of the catalogue."""
    icons, declared = icon_set(folder), characters(folder)
    found = {code: name for code, name in declared.items() if code in catalogue and name in icons["icons"]}
    drawn = set(found.values())
    for name in sorted(icons["icons"]):
        code = names.get(name) or names.get(re.sub(r"-\d$", "", name))
        if code and not declared and name not in drawn:
            found.setdefault(code, name)
    return found


def _chosen(found: dict[str, str], catalogue: dict[str, Emoji], vendor: str) -> list[str]:
    """Keep every plain emoji and one skin tone, picked at random, of each."""
    toned = defaultdict(list)
    for code in found:
        if not catalogue[code].plain:
            toned[catalogue[code].base].append(code)
    picks = [min(codes, key=lambda code: draw("tone", vendor, code)) for codes in toned.values()]
    return sorted([code for code in found if catalogue[code].plain] + picks)


def training_drawings(folders: dict[str, Path], catalogue: dict[str, Emoji]) -> Iterator[Drawing]:
    """Yield the emoji of the training vendors."""
    names = name_table(folders, catalogue)
    for vendor, license_id in TRAINING.items():
        icons = icon_set(folders[vendor])
        found = _matches(folders[vendor], names, catalogue)
        for code in _chosen(found, catalogue, vendor):
            yield _drawing(f"emoji:{vendor}", license_id, svg_of(icons, found[code]), catalogue[code])


def held_out_drawings(folders: dict[str, Path], catalogue: dict[str, Emoji]) -> Iterator[Drawing]:
    """Yield the held-out vendor's emoji, flat and shaded, without skin tones."""
    codes = characters(folders["fluent-emoji-flat"])
    for vendor, twin in HELD_OUT.items():
        icons = icon_set(folders[vendor])
        for code, name in sorted(codes.items()):
            if code in catalogue and catalogue[code].plain and name in icons["icons"]:
                yield _drawing(f"emoji:{vendor}", "MIT", svg_of(icons, name), catalogue[code], twin)


def _drawing(source: str, license_id: str, svg: str, emoji: Emoji, twin: str = "") -> Drawing:
    return Drawing(
        source, emoji.code, license_id, svg, emoji.label, emoji.concept, emoji.hypernym, emoji.tags, twin
    )
