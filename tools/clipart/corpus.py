"""Assembles the pre-training pairs: captions, splits by concept, no pixel twice across splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.clipart.captions import captions
from tools.clipart.drawing import Drawing, share
from tools.clipart.render import render_all

CLEAN, VALIDATION = 0.10, 0.06


@dataclass(frozen=True)
class Pair:
    """One picture with its captions and the split its concept belongs to."""

    drawing: Drawing
    pixels: np.ndarray
    captions: list[str]
    split: str


def split_of(concept: str) -> str:
    """Assign a concept to a split by its name alone."""
    place = share("split", concept)
    if place < CLEAN:
        return "clean"
    return "validation" if place < CLEAN + VALIDATION else "train"


def build_pairs(drawings: Sequence[Drawing], workers: int) -> list[Pair]:
    """Render all drawings and return the pairs, ordered by source and name."""
    ordered = sorted(drawings, key=lambda drawing: (drawing.source, drawing.ident))
    pairs = [
        Pair(drawing, *_content(drawing, *picture), split_of(drawing.concept))
        for drawing, picture in zip(ordered, render_all(ordered, workers), strict=True)
        if picture
    ]
    return without_crossings(pairs)


def _content(drawing: Drawing, pixels: np.ndarray, background: str) -> tuple[np.ndarray, list[str]]:
    return pixels, captions(drawing, pixels, background)


def without_crossings(pairs: list[Pair]) -> list[Pair]:
    """Drop pairs of a smaller split whose exact pixels occur in a larger one."""
    seen: set[bytes] = set()
    kept: set[int] = set()
    for split in ("train", "clean", "validation"):
        members = [(place, pair.pixels.tobytes()) for place, pair in enumerate(pairs) if pair.split == split]
        kept |= {place for place, content in members if content not in seen}
        seen |= {content for _, content in members}
    return [pair for place, pair in enumerate(pairs) if place in kept]
