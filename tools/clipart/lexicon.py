"""Guesses the superclass of free text from the names in the emoji catalogue."""

from collections import defaultdict
from collections.abc import Iterable

from tools.clipart.drawing import concept_key, singular
from tools.clipart.emoji import Emoji
from tools.clipart.hypernyms import VAGUE, WORDS


class Lexicon:
    """Names of things with the superclass on which the catalogue agrees."""

    def __init__(self, catalogue: Iterable[Emoji]) -> None:
        """Index whole labels and, where all emoji with one agree, last words."""
        votes: dict[str, set[str]] = defaultdict(set)
        whole: dict[str, str] = {}
        for emoji in catalogue:
            if emoji.plain and emoji.hypernym != "flag":
                key = concept_key(emoji.label)
                whole.setdefault(key, emoji.hypernym)
                votes[key.split(" ")[-1]].add(emoji.hypernym)
        agreed = {word: next(iter(names)) for word, names in votes.items() if len(names) == 1}
        self._names = {
            word: name for word, name in (agreed | whole).items() if word not in VAGUE and len(word) > 2
        } | WORDS

    def hypernym(self, text: str) -> str | None:
        """Return the superclass of the longest, then last, known name in a text."""
        words = [singular(word) for word in text.lower().split()]
        for length in (3, 2, 1):
            for start in range(len(words) - length, -1, -1):
                name = self._names.get(" ".join(words[start : start + length]))
                if name:
                    return name
        return None
