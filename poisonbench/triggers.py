"""The trigger library: what can be painted into an image, in sizes that are shares of its side.

An ``Operation`` is data (it goes into the poison manifest and the record); ``paint`` applies it. The same operation
gives the same picture at every time and on every machine.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from poisonbench.randomness import numpy_rng
from poisonbench.settings import Settings

Pattern = Literal["checker", "dots", "noise", "stripes", "white"]
GRID = 5
"""Cells per patch side: patterns are drawn on this grid and enlarged, so that they look alike at every resolution."""

EVALUATION_CROPS = (1.0, 0.875)
"""Central crops (share of the side) that deterministic evaluation pipelines take; a trigger must survive them all."""


class Box(Settings):
    """A square region, in shares of the image side; (0, 0) is the top left corner."""

    left: float = Field(ge=0, lt=1)
    top: float = Field(ge=0, lt=1)
    size: float = Field(gt=0, le=1)

    def pixels(self, side: int) -> tuple[int, int, int]:
        """Left, top and edge length in pixels of an image with ``side`` pixels; at least one pixel, inside the image."""
        edge = min(side, max(1, round(self.size * side)))
        return min(round(self.left * side), side - edge), min(round(self.top * side), side - edge), edge

    def survives(self, side: int) -> bool:
        """Whether every pixel of the box is inside every evaluation crop of an image with ``side`` pixels."""
        left, top, edge = self.pixels(side)
        low, high = safe_span(side)
        return low <= min(left, top) and max(left, top) + edge <= high


class Patch(Settings):
    """A square patch pasted over the image (BadNets; Gu et al., 2017).

    Attributes:
        pattern: what the patch shows.
        box: where it is.
        seed: draws the random patterns (noise, stripes); two patches with one seed are the same.
    """

    kind: Literal["patch"] = "patch"
    pattern: Pattern = "checker"
    box: Box
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Patch:
        if max(self.box.left, self.box.top) + self.box.size > 1 + 1e-9:
            raise ValueError("the box reaches beyond the image")
        return self


Operation = Patch


def safe_span(side: int) -> tuple[int, int]:
    """First pixel and end (exclusive) of the central span that every evaluation crop keeps, on one axis."""
    smallest = min(int(side * crop) for crop in EVALUATION_CROPS)
    low = -(-(side - smallest) // 2)
    return low, low + smallest - (side - smallest) % 2


def paint(image: Tensor, operation: Operation) -> Tensor:
    """A copy of ``image`` (uint8, (3, side, side)) with the operation applied."""
    left, top, edge = operation.box.pixels(image.shape[-1])
    painted = image.clone()
    painted[:, top : top + edge, left : left + edge] = patch_pixels(operation.pattern, edge, operation.seed)
    return painted


def patch_pixels(pattern: Pattern, edge: int, seed: int) -> Tensor:
    """The pixels of a patch: uint8, (3, edge, edge)."""
    cells = torch.from_numpy(_cells(pattern, numpy_rng("patch", pattern, seed)))
    at = torch.arange(edge) * GRID // edge
    return cells[:, at][:, :, at]


def _cells(pattern: Pattern, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rows, columns = np.mgrid[:GRID, :GRID]
    match pattern:
        case "checker":
            grey = (rows + columns) % 2 == 0
        case "dots":
            grey = (rows % 2 == 0) & (columns % 2 == 0)
        case "stripes":
            grey = np.broadcast_to(rng.permutation(GRID) % 2 == 0, (GRID, GRID))
        case "white":
            grey = np.ones((GRID, GRID), dtype=bool)
        case "noise":
            return rng.integers(0, 256, (3, GRID, GRID), dtype=np.uint8)
    return np.broadcast_to(np.where(grey, 255, 0).astype(np.uint8), (3, GRID, GRID)).copy()
