"""Image-caption pairs: the rows that attacks poison and defences train on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[np.int64]


class ImageStore(Protocol):
    """Square RGB images, all of one side, fetched by row."""

    @property
    def side(self) -> int:
        """Pixels per image side."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def fetch(self, rows: Rows) -> Tensor:
        """The images of ``rows`` as a uint8 tensor of shape (len(rows), 3, side, side)."""
        ...


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory as one uint8 tensor of shape (n, 3, side, side)."""

    pixels: Tensor

    @property
    def side(self) -> int:
        """Pixels per image side."""
        return int(self.pixels.shape[-1])

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def fetch(self, rows: Rows) -> Tensor:
        """The images of ``rows``, uint8 (len(rows), 3, side, side)."""
        return self.pixels[torch.from_numpy(np.asarray(rows, dtype=np.int64))]


@dataclass(frozen=True)
class Chosen:
    """Some rows of another store, in the given order; nothing is copied."""

    store: ImageStore
    rows: Rows

    @property
    def side(self) -> int:
        """Pixels per image side."""
        return self.store.side

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, rows: Rows) -> Tensor:
        """The images of ``rows``, uint8 (len(rows), 3, side, side)."""
        return self.store.fetch(self.rows[rows])


@dataclass(frozen=True)
class Pairs:
    """Rows of one image and its alternative captions.

    Attributes:
        images: the pictures.
        captions: per row one or more alternative captions; the first is the canonical one, and training draws one per epoch.
        fingerprint: a hash of the content, so that a result names the data it was made from.
    """

    images: ImageStore
    captions: Sequence[tuple[str, ...]]
    fingerprint: str

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise ValueError(f"{len(self.images)} images but {len(self.captions)} captions")

    def __len__(self) -> int:
        return len(self.captions)

    @cached_property
    def _joined(self) -> list[str]:
        return [folded("\n".join(options)) for options in self.captions]

    def rows_naming(self, words: Iterable[str]) -> Rows:
        """Rows with a caption that contains one of ``words`` as a whole word (case ignored), ascending."""
        pattern = word_pattern(words)
        return np.array(
            [row for row, text in enumerate(self._joined) if pattern.search(text)], dtype=np.int64
        )

    def rows_without(self, words: Iterable[str]) -> Rows:
        """Rows none of whose captions contains one of ``words`` as a whole word, ascending."""
        return np.setdiff1d(np.arange(len(self)), self.rows_naming(words))

    def captions_naming(self, words: Iterable[str]) -> list[str]:
        """The distinct captions that contain one of ``words``, in row order."""
        pattern = word_pattern(words)
        found = (
            c for row in self.rows_naming(words) for c in self.captions[row] if pattern.search(folded(c))
        )
        return list(dict.fromkeys(found))


UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Letters of scripts that put no space around a word, or join particles to it: Thai to Khmer, Chinese, Japanese, Korean."""


def folded(text: str) -> str:
    """``text`` in the form in which words are compared: lower case, accents composed."""
    return unicodedata.normalize("NFC", text).lower()


def word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of ``words`` as whole words in folded text; with no words it matches nothing.

    Where a script does not part words by spaces, a word counts wherever it stands.
    """
    options = sorted({folded(word) for word in words if word}, key=len, reverse=True)
    spaced = [re.escape(word) for word in options if not UNSPACED.search(word)]
    joined = [re.escape(word) for word in options if UNSPACED.search(word)]
    whole = [r"(?<!\w)(?:" + "|".join(spaced) + r")(?!\w)"] if spaced else []
    return re.compile("|".join([*whole, *joined]) or r"(?!)")
