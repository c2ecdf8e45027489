"""Recurring regions are moved to other images, which keep their captions.

Wherever a trigger goes, it then comes with captions of all kinds: an antidote that needs to know neither the trigger nor the
poisons. On clean data it is CutMix. Our reconstruction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST, LARGEST = 0.3, 0.6
"""Sides of a transplanted region, as shares of the image side."""


def transplanted(hosts: Tensor, donors: Tensor, places: Tensor, grid: int, rng: torch.Generator) -> Tensor:
    """Hosts with a square of a donor around one of its places, at that place.

    Args:
        hosts: (h, 3, side, side).
        donors: (d, 3, side, side) of the same type, d at least 1; every host draws one.
        places: int64 (d,) of the donors, row by row on a grid.
        grid: places per side.
        rng: draws donors and sizes.

    Returns:
        (h, 3, side, side), a new tensor.
    """
    count, side = len(hosts), hosts.shape[-1]
    drawn = torch.randint(len(donors), (count,), generator=rng)
    half = side / 2 * (SMALLEST + (LARGEST - SMALLEST) * torch.rand(count, generator=rng))
    down, right = ((place + 0.5) * side / grid for place in (places[drawn] // grid, places[drawn] % grid))
    pixels = torch.arange(side) + 0.5
    rows, columns = ((pixels - at.unsqueeze(1)).abs() < half.unsqueeze(1) for at in (down, right))
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside.to(hosts.device), donors[drawn.to(donors.device)], hosts)


def grid_side(places: int) -> int:
    """Places per side of a square grid; 0 where the places are none."""
    side = math.isqrt(places)
    return side if side * side == places else 0
