"""A word repeated over the image, in letters that need no font file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WORD = (
    "XXX X.. X XXX",
    "X.. X.. X X.X",
    "X.. X.. X XXX",
    "X.. X.. X X..",
    "XXX XXX X X..",
)
"""Five rows of letters; an X is ink."""

REPEATS = 2
"""Words per image side."""


def ink(side: int) -> npt.NDArray[np.bool_]:
    """Which pixels of an image with ``side`` pixels are letters, (side, side)."""
    word = np.array([[mark == "X" for mark in row] for row in WORD])
    tile = np.pad(word, ((1, 1), (0, 1)))
    height, width = tile.shape
    cells = REPEATS * width
    at = (np.arange(side) * 2 + 1) * cells // (2 * side)
    return np.asarray(tile[np.ix_(at % height, at % width)])
