"""Downstream tasks: labelled images and class names that a trained CLIP is judged on."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from poisonbench.errors import UserError, did_you_mean
from poisonbench.pairs import ImageStore, Rows

Kind = Literal["zero_shot", "probe"]


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: the task's name in records.
        kinds: what it is good for: zero-shot classification, linear probing, or both.
        classes: class names, in label order.
        words: per class the words that name it in captions (the class name, synonyms, members).
        templates: prompt templates as clip-benchmark wants them, with ``{c}`` for the class.
        images: the pictures.
        labels: class index per picture.
        concepts: what is drawn; pictures of one concept are not independent, so probes split and intervals resample by it.
    """

    name: str
    kinds: frozenset[Kind]
    classes: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    templates: tuple[str, ...]
    images: ImageStore
    labels: npt.NDArray[np.int64]
    concepts: Sequence[str]

    def index(self, name: str) -> int:
        """The label of class ``name``.

        Raises:
            UserError: if the task has no such class.
        """
        name = unicodedata.normalize("NFC", name)
        if name not in self.classes:
            raise UserError(
                f"target '{name}' is not a class of task '{self.name}'; {did_you_mean(name, self.classes)}"
            )
        return self.classes.index(name)

    def naming(self, name: str) -> tuple[str, ...]:
        """The words that name class ``name`` in captions; always with the class name itself."""
        self.index(name)
        return tuple(dict.fromkeys((name.lower(), *self.words.get(name, ()))))

    def rows_of(self, name: str) -> Rows:
        """The rows whose true class is ``name``."""
        return np.flatnonzero(self.labels == self.index(name)).astype(np.int64)


@dataclass(frozen=True)
class TargetArt:
    """Pictures that no task scores, for attacks that poison single images.

    Attributes:
        images: the pictures.
        concepts: what is drawn, per picture; twins share it.
        kinds: a coarser name of what is drawn (for example a class name), per picture.
    """

    images: ImageStore
    concepts: Sequence[str]
    kinds: Sequence[str]


@dataclass(frozen=True)
class Assets:
    """What an attacker has besides the pairs: the downstream classes and held-out pictures.

    Attributes:
        task: the headline zero-shot task; targets are among its classes.
        targets: held-out pictures for targeted poisoning, or None where the data has none.
    """

    task: Task
    targets: TargetArt | None
