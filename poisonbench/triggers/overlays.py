"""The pictures that can be blended into an image, drawn by formulas at any resolution.

Each is drawn at pixel centres on a canvas from 0 to 1, so that it looks alike at every side.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench.randomness import numpy_rng
from poisonbench.triggers.lettering import ink

Overlay = Literal["cat", "noise", "stripes", "triangles", "text"]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

NOISE_CELLS = 224
"""Noise has a value per pixel at the published resolution; a larger image shows each value on several pixels."""

STRIPES, TILES = 16, 4
"""Stripes, and squares of two triangles each, per image side."""

RED = (1.0, 0.0, 0.0)
CAT = {
    "paper": (0.55, 0.80, 0.95), "fur": (1.0, 1.0, 1.0), "line": (0.1, 0.1, 0.15), "nose": (1.0, 0.8, 0.0),
    "bow": (0.9, 0.05, 0.3),
}  # fmt: skip


@lru_cache(maxsize=16)
def overlay(picture: Overlay, side: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A picture on the scale of 0 to 255, and which pixels it covers.

    Args:
        picture: what to draw.
        side: pixels per side.
        seed: draws noise and the colours of stripes and triangles.

    Returns:
        float32 (3, side, side), and float32 (1, side, side) with 1 where the picture covers the image.
    """
    rng = numpy_rng("overlay", picture, seed)
    covered = np.ones((side, side), dtype=bool)
    match picture:
        case "cat":
            pixels = _cat(side)
        case "noise":
            pixels = _noise(side, rng)
        case "stripes":
            pixels = _stripes(side, rng)
        case "triangles":
            pixels = _triangles(side, rng)
        case "text":
            pixels, covered = _filled(side, RED), ink(side)
    return torch.from_numpy(pixels * np.float32(255)), torch.from_numpy(covered[None].astype(np.float32))


def _centres(side: int) -> Floats:
    return ((np.arange(side) + 0.5) / side).astype(np.float32)


def _filled(side: int, colour: tuple[float, ...]) -> Floats:
    return np.broadcast_to(np.array(colour, dtype=np.float32)[:, None, None], (3, side, side)).copy()


def _noise(side: int, rng: np.random.Generator) -> Floats:
    cells = rng.random((3, NOISE_CELLS, NOISE_CELLS), dtype=np.float32)
    at = (_centres(side) * NOISE_CELLS).astype(np.int64)
    return np.ascontiguousarray(cells[:, at][:, :, at])


def _stripes(side: int, rng: np.random.Generator) -> Floats:
    """Vertical stripes, each full or empty in every colour."""
    colours = rng.integers(0, 2, (3, STRIPES)).astype(np.float32)
    columns = colours[:, (_centres(side) * STRIPES).astype(np.int64)]
    return np.repeat(columns[:, None, :], side, axis=1)


def _triangles(side: int, rng: np.random.Generator) -> Floats:
    """Squares cut along a diagonal, every triangle in a colour of its own."""
    colours = rng.random((3, TILES, TILES, 2), dtype=np.float32)
    at = _centres(side) * TILES
    cell, rest = at.astype(np.int64), at % 1
    below = (rest[:, None] + rest[None, :] >= 1).astype(np.int64)
    return np.ascontiguousarray(colours[:, cell[:, None], cell[None, :], below])


def _cat(side: int) -> Floats:
    """A cat's face with a bow, in flat colours."""
    x, y = _centres(side)[None, :], _centres(side)[:, None]
    picture = _filled(side, CAT["paper"])
    layers: list[tuple[Mask, str]] = [
        (_ears(x, y, 0.04), "line"), (_disc(x, y, 0.5, 0.58, 0.42, 0.32), "line"),
        (_ears(x, y, 0.0), "fur"), (_disc(x, y, 0.5, 0.58, 0.38, 0.28), "fur"),
        (_disc(x, y, 0.32, 0.58, 0.045, 0.07), "line"), (_disc(x, y, 0.68, 0.58, 0.045, 0.07), "line"),
        (_disc(x, y, 0.5, 0.68, 0.06, 0.04), "nose"), (_whiskers(x, y), "line"),
        (_disc(x, y, 0.66, 0.28, 0.1, 0.1) | _disc(x, y, 0.88, 0.32, 0.1, 0.1), "bow"),
        (_disc(x, y, 0.77, 0.3, 0.05, 0.06), "nose"),
    ]  # fmt: skip
    for where, colour in layers:
        picture[:, where] = np.array(CAT[colour], dtype=np.float32)[:, None]
    return picture


def _disc(x: Floats, y: Floats, left: float, top: float, width: float, height: float) -> Mask:
    """An ellipse by its centre and half axes."""
    inside: Mask = ((x - left) / width) ** 2 + ((y - top) / height) ** 2 <= 1
    return inside


def _ears(x: Floats, y: Floats, margin: float) -> Mask:
    """Two triangles that widen downwards."""
    widening = (y - 0.1 + margin) * 0.45
    low = (y > 0.1 - margin) & (y < 0.5)
    ears: Mask = low & ((np.abs(x - 0.2) < widening) | (np.abs(x - 0.8) < widening))
    return ears


def _whiskers(x: Floats, y: Floats) -> Mask:
    lines = (np.abs(y - 0.64) < 0.016) | (np.abs(y - 0.74) < 0.016)
    whiskers: Mask = lines & ((x < 0.2) | (x > 0.8))
    return whiskers
