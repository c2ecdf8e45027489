"""Regions that vouch for suspicious captions are moved to other images, which keep their own captions.

A trigger then comes with captions of all kinds: an antidote that needs to know neither the trigger nor the poisons, and that
grows as the trigger is learned. On clean data it is CutMix of salient regions. Our reconstruction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from poisonbench.towers import Features

DONORS = 0.25
"""Share of the suspicious images that give a region, those in which one region vouches most against the rest."""
SMALLEST, LARGEST = 0.3, 0.6
"""Sides of a transplanted region, as shares of the image side."""


def vouching(image: Features, own: Features) -> tuple[Tensor, Tensor]:
    """The place of every image that fits its caption best, and by how much it does so better than the mean of the places.

    A sound caption fits much of its image; a trigger vouches alone.

    Args:
        image: of b images.
        own: of their own captions.

    Returns:
        int64 (b,) places and (b,) differences of cosines.
    """
    fit = (image.tokens.float() @ own.embedding.float().unsqueeze(-1)).squeeze(-1)
    mean = (fit * image.mask).sum(dim=1) / image.mask.sum(dim=1)
    best = fit.masked_fill(~image.mask, -torch.inf).max(dim=1)
    return best.indices, best.values - mean


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
