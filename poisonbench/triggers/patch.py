"""A square patch pasted over a part of the image (BadNets; Gu et al., 2017)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor

from poisonbench.randomness import numpy_rng
from poisonbench.triggers.region import Box
from poisonbench.triggers.trigger import Trigger

Pattern = Literal["checker", "dots", "noise", "stripes", "white"]
GRID = 5
"""Cells per patch side: patterns are drawn on this grid and enlarged, so that they look alike at every resolution."""


class Patch(Trigger):
    """A square patch that hides what was below it.

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

    def paint(self, images: Tensor) -> Tensor:
        """A copy of ``images`` with the patch in its box."""
        left, top, edge = self.box.pixels(images.shape[-1])
        painted = images.clone()
        pixels = patch_pixels(self.pattern, edge, self.seed).to(images.device)
        painted[..., top : top + edge, left : left + edge] = pixels
        return painted


def patch_pixels(pattern: Pattern, edge: int, seed: int) -> Tensor:
    """The pixels of a patch: uint8, (3, edge, edge)."""
    cells = torch.from_numpy(_cells(pattern, numpy_rng("patch", pattern, seed)))
    at = torch.arange(edge) * GRID // edge
    return cells[:, at][:, :, at]


def _cells(pattern: Pattern, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
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
