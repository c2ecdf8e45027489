"""Looks up synonyms for the words of the captions in WordNet's database files."""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

PARTS = ("noun", "verb", "adj", "adv")
SENSES = 2
MOST = 8
STOP = frozenset(re.findall(r"\w+", "a an the of on in with and or by to at for is it as be no up"))


def license_text(folder: Path) -> str:
    """Return the licence that heads every database file."""
    lines = []
    for line in (folder / "dict/data.noun").read_text().splitlines():
        head = re.match(r"  (\d+) ?(.*)", line)
        if not head:
            break
        lines.append(head[2].rstrip())
    return "\n".join(lines).strip() + "\n"


def vocabulary(captions: Iterable[str]) -> set[str]:
    """Return the words and two-word phrases of the captions."""
    found: set[str] = set()
    for caption in captions:
        words = re.findall(r"[a-z]+", caption.lower())
        found.update(words)
        found.update(f"{first} {second}" for first, second in pairwise(words))
    return {word for word in found if len(word) > 2 and not STOP & set(word.split())}


def synonyms(folder: Path, wanted: set[str]) -> dict[str, list[str]]:
    """Return the synonyms of every wanted word that has any."""
    found: dict[str, list[str]] = {}
    for part in PARTS:
        data = (folder / f"dict/data.{part}").read_bytes()
        for word, offsets in _index(folder / f"dict/index.{part}", wanted):
            for offset in offsets[:SENSES]:
                found.setdefault(word, []).extend(_members(data, offset))
    cleaned = {word: _distinct(word, names) for word, names in found.items()}
    return {word: names for word, names in sorted(cleaned.items()) if names}


def _index(path: Path, wanted: set[str]) -> Iterable[tuple[str, list[int]]]:
    """Yield the wanted words of an index file with the places of their senses."""
    for line in path.read_text().splitlines():
        word = line.split(" ", 1)[0].replace("_", " ")
        if word in wanted:
            yield word, [int(place) for place in re.findall(r"\b\d{8}\b", line)]


def _members(data: bytes, offset: int) -> list[str]:
    """Return the words of the sense that starts at an offset of a data file."""
    fields = data[offset : data.index(b"\n", offset)].decode().split(" ")
    names = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    return [re.sub(r"\(\w+\)$", "", name).replace("_", " ") for name in names]


def _distinct(word: str, names: list[str]) -> list[str]:
    """Keep short lower-case words and phrases other than the word itself."""
    plain = [
        name for name in names if re.fullmatch(r"[a-z]+( [a-z]+)?", name) and len(name) > 2 and name != word
    ]
    return list(dict.fromkeys(plain))[:MOST]
