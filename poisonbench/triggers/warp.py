"""A fixed small deformation of the whole image (WaNet; Nguyen and Tran, ICLR 2021)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from poisonbench.randomness import torch_rng
from poisonbench.triggers.trigger import Trigger, to_bytes

FARTHEST = 0.25
"""Mean displacement, as a share of the image side, beyond which hardly anything of a picture would be left."""


class Warp(Trigger):
    """Every pixel is taken from a little beside its place.

    Attributes:
        cells: control points per side of the field; many give a jitter of pixels, few a smooth warp.
        shift: mean displacement along an axis, as a share of the image side.
        seed: draws the field; two warps with one seed are the same.
    """

    kind: Literal["warp"] = "warp"
    cells: int = Field(4, ge=2)
    shift: float = Field(1 / 64, gt=0, le=FARTHEST)
    seed: int = Field(0, ge=0)

    def paint(self, images: Tensor) -> Tensor:
        """A copy of ``images`` seen through the field."""
        batch = images.reshape(-1, *images.shape[-3:])
        grid = _grid(self.cells, self.shift, self.seed, images.shape[-1]).to(images.device)
        everywhere = grid.expand(len(batch), -1, -1, -1)
        moved = F.grid_sample(batch.float(), everywhere, padding_mode="border", align_corners=True)
        return to_bytes(moved).reshape(images.shape)


@lru_cache(maxsize=8)
def _grid(cells: int, shift: float, seed: int, side: int) -> Tensor:
    """Where each pixel is taken from, (1, side, side, 2) in -1 to 1; drawn on ``cells``, so alike at every side."""
    field = torch.rand(1, 2, cells, cells, generator=torch_rng("warp", seed)) * 2 - 1
    field = field / field.abs().mean()
    field = F.interpolate(field, size=side, mode="bicubic", align_corners=True)
    places = torch.linspace(-1, 1, side)
    identity = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1)
    return (identity + 2 * shift * field.permute(0, 2, 3, 1)).clamp(-1, 1)
