"""EDA: easy data augmentation of captions (Wei and Zou, EMNLP 2019), one operation per caption as in RoCLIP's code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

STOP_WORDS = frozenset(
    "a an the and or of in on at to by for with from is are was be as it its this that these those no not".split()  # noqa: SIM905
)


def eda(
    caption: str, synonyms: Mapping[str, Sequence[str]], rng: np.random.Generator, share: float = 0.1
) -> str:
    """One of four operations, each with equal chance: replace by synonyms, insert synonyms, swap words, delete words.

    Args:
        caption: any text; lower-cased and reduced to letters, as in the original.
        synonyms: word to its synonyms.
        rng: the only source of randomness.
        share: share of the words that change (at least one); the chance of each word to be deleted.

    Returns:
        The new caption, or the given one where it has no letters.
    """
    words = re.sub(r"[^a-z ]", " ", re.sub(r"['’]", "", caption.lower())).split()
    if not words:
        return caption
    count = max(1, int(share * len(words)))
    operation = int(rng.integers(4))
    if operation == 3:
        kept = [word for word in words if rng.random() > share]
        return " ".join(kept or [words[int(rng.integers(len(words)))]])
    for _ in range(count):
        words = (_replace, _insert, _swap)[operation](words, synonyms, rng)
    return " ".join(words)


def _candidates(words: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> list[int]:
    return [at for at, word in enumerate(words) if word not in STOP_WORDS and synonyms.get(word)]


def _replace(words: list[str], synonyms: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[str]:
    places = _candidates(words, synonyms)
    if not places:
        return words
    chosen = words[places[int(rng.integers(len(places)))]]
    options = synonyms[chosen]
    new = options[int(rng.integers(len(options)))]
    return [new if word == chosen else word for word in words]


def _insert(words: list[str], synonyms: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[str]:
    places = _candidates(words, synonyms)
    if not places:
        return words
    options = synonyms[words[places[int(rng.integers(len(places)))]]]
    at = int(rng.integers(len(words) + 1))
    return [*words[:at], options[int(rng.integers(len(options)))], *words[at:]]


def _swap(words: list[str], synonyms: Mapping[str, Sequence[str]], rng: np.random.Generator) -> list[str]:
    first, second = rng.integers(len(words), size=2)
    swapped = list(words)
    swapped[first], swapped[second] = words[second], words[first]
    return swapped
