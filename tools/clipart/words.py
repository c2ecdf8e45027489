"""Finds, per class, the words that mark its captions."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from tools.clipart.corpus import Pair
from tools.clipart.drawing import Drawing, concept_key, singular

PRECISION, FEWEST, MOST = 0.7, 3, 80
GROUPS = {
    "animal": {"animal", "mammal", "bird", "bug", "sea animal", "reptile", "animal head"},
    "food": {"dish", "dessert", "drink"},
    "person at work": {"worker"},
    "fruit or vegetable": {"fruit", "vegetable"},
    "vehicle": {"ground vehicle", "boat", "aircraft"},
    "person doing something": {"person", "athlete"},
}


def phrases(text: str, longest: int = 3) -> set[str]:
    """Return all words of a text and its runs of up to `longest` words, as they stand in it.

    No run crosses punctuation; the parts of hyphenated words count as words too.
    """
    found = set(re.findall(r"[a-z0-9'&.]+", text.lower()))
    for part in re.split(r"[,:;()]", text.lower()):
        words = re.findall(r"[a-z0-9'&.-]+", part)
        for size in range(1, longest + 1):
            found.update(" ".join(words[at : at + size]) for at in range(len(words) - size + 1))
    return found


class WordIndex:
    """Counts in how many training rows of which superclass a phrase occurs."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        """Index every phrase of every caption of the training rows."""
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._names: dict[str, set[str]] = defaultdict(set)
        for pair in pairs:
            if pair.split == "train":
                self._count(pair)
            if pair.drawing.source.startswith("emoji:"):
                self._name(pair.drawing)

    def _count(self, pair: Pair) -> None:
        for phrase in set().union(*map(phrases, pair.captions)):
            self._counts[phrase][pair.drawing.hypernym] += 1

    def _name(self, drawing: Drawing) -> None:
        label, tags = concept_key(drawing.label), set(drawing.tags)
        named = {label, drawing.label.lower(), *label.split(" ")[-1:], *map(singular, tags), *tags}
        self._names[drawing.hypernym] |= named

    def precision(self, word: str, group: set[str]) -> tuple[float, int]:
        """Return the share of rows with `word` that belong to `group`, and their number."""
        counts = self._counts.get(word, Counter())
        total = sum(counts.values())
        inside = sum(counts[name] for name in group)
        return (inside / total if total else 0.0), inside

    def words(self, name: str) -> list[str]:
        """Return the words of a class: its name, then precise words by frequency."""
        group = GROUPS.get(name, {name})
        candidates = set().union(*(self._names[member] for member in group)) | group
        scored = {word: self.precision(word, group) for word in candidates if len(word) > 2 and word != name}
        good = [
            word for word, (precision, count) in scored.items() if precision >= PRECISION and count >= FEWEST
        ]
        return [name, *sorted(good, key=lambda word: (-scored[word][1], word))[:MOST]]
