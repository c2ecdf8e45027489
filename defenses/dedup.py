"""Deduplication: the trivial filter that every other one has to beat."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from poisonbench.defense import Curation, Defense, DefenseCard, DefenseConfig
from poisonbench.lab import Lab
from poisonbench.pairs import ImageStore, Pairs

SIDE, LOW = 32, 8
"""A perceptual hash looks at the 8 x 8 lowest frequencies of a 32 x 32 picture: 64 bits."""

BITS = LOW * LOW
BATCH = 512
BUDGET = 256 * 2**20
"""Bytes of the comparison matrix that is held at a time."""

Counts = npt.NDArray[np.int64]


class Dedup(Defense):
    """Keep one of several near copies of a picture, and no more than a few rows with the same caption.

    Needs no model and knows nothing of poison. It breaks attacks that repeat a picture (targeted poisoning) or a caption,
    and is blind to triggers on pictures that differ. Near copies have perceptual hashes (signs of the lowest DCT frequencies
    of the grey picture; Zauner, 2010) that differ in a few bits.
    """

    card = DefenseCard(title="deduplication", paper="-", year=2010, track="filter")

    class Config(DefenseConfig):
        """What counts as a copy, and how many may stay.

        Attributes:
            match: ``near`` copies by perceptual hash, or ``exact`` ones, equal in every pixel.
            distance: bits, of 64, in which the hashes of near copies may differ.
            copies: rows that stay of every picture, the first ones.
            captions: rows that may have the same first caption, the first ones; 0 for any number.
        """

        match: Literal["near", "exact"] = "near"
        distance: int = Field(2, ge=0, le=16)
        copies: int = Field(1, ge=1)
        captions: int = Field(0, ge=0)

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        """Remove surplus copies; the score of a row counts its copies, and its rivals for a capped caption."""
        if self.config.match == "near":
            earlier, others = near_copies(perceptual_hashes(pairs.images, lab.device), self.config.distance)
        else:
            earlier, others = same(pixel_hashes(pairs.images))
        keep, scores = earlier < self.config.copies, others.astype(np.float64)
        if self.config.captions:
            before, rivals = same([options[0] for options in pairs.captions])
            keep &= before < self.config.captions
            scores += np.maximum(0, rivals + 1 - self.config.captions)
        return Curation(keep=keep, scores=scores)


def same(keys: Sequence[Hashable]) -> tuple[Counts, Counts]:
    """For every key how many earlier ones, and how many others, are equal to it: (n,) each."""
    seen: Counter[Hashable] = Counter()
    earlier = np.zeros(len(keys), dtype=np.int64)
    for row, key in enumerate(keys):
        earlier[row] = seen[key]
        seen[key] += 1
    return earlier, np.array([seen[key] - 1 for key in keys], dtype=np.int64)


def near_copies(hashes: Tensor, distance: int, budget: int = BUDGET) -> tuple[Counts, Counts]:
    """For every row how many earlier ones, and how many others, differ in at most ``distance`` bits: (n,) each.

    Every pair is compared, in chunks: O(n^2) time, O(budget) memory.

    Args:
        hashes: (n, 64), +1 or -1 for a bit, on the device that shall compare.
        distance: bits.
        budget: bytes.
    """
    n = len(hashes)
    step = max(1, budget // (4 * n))
    earlier, others = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    columns = torch.arange(n, device=hashes.device)
    for at in range(0, n, step):
        rows = columns[at : at + step]
        close = hashes[rows] @ hashes.T >= BITS - 2 * distance  # every differing bit turns a +1 into a -1
        earlier[at : at + step] = (close & (columns < rows[:, None])).sum(dim=1).cpu().numpy()
        others[at : at + step] = close.sum(dim=1).cpu().numpy() - 1
    return earlier, others


def pixel_hashes(images: ImageStore) -> list[bytes]:
    """A digest of every picture's pixels."""
    return [hashlib.blake2b(image.numpy().tobytes()).digest() for part in _batches(images) for image in part]


def perceptual_hashes(images: ImageStore, device: str = "cpu") -> Tensor:
    """The 64-bit perceptual hash of every picture as signs, float32 (n, 64) of +1 and -1, on ``device``."""
    return torch.cat([_hashes(part.to(device)) for part in _batches(images)])


def _hashes(images: Tensor) -> Tensor:
    grey = F.interpolate(images.float().mean(dim=1, keepdim=True), (SIDE, SIDE), mode="area").squeeze(1)
    waves = _cosines().to(grey.device)
    spectrum = (waves @ grey @ waves.T).flatten(1)
    return torch.where(spectrum > spectrum[:, 1:].median(dim=1, keepdim=True).values, 1.0, -1.0)


def _cosines() -> Tensor:
    """The first rows of the DCT-II matrix, (8, 32)."""
    place, wave = torch.arange(SIDE) + 0.5, torch.arange(LOW)
    return torch.cos(torch.pi / SIDE * wave[:, None] * place)


def _batches(images: ImageStore) -> Iterator[Tensor]:
    for at in range(0, len(images), BATCH):
        yield images.fetch(np.arange(at, min(at + BATCH, len(images))))
