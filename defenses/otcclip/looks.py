"""Disturbed looks at images (b, 3, side, side) in [0, 1]: what a picture shows survives each of them, a trigger seldom all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE = 5 / 32
"""Width of the blur, as a share of the image side."""

HARD = 3.0
"""How much farther from medium grey a hard contrast moves every colour; what was faint beside strong colours is cut off."""


def blurred(images: Tensor) -> Tensor:
    """Every pixel the mean of the square around it."""
    reach = max(1, round(WIDE * images.shape[-1] / 2))
    return F.avg_pool2d(F.pad(images, (reach,) * 4, mode="replicate"), 2 * reach + 1, 1)


def grey(images: Tensor) -> Tensor:
    """Without colour."""
    return images.mean(dim=1, keepdim=True).expand_as(images)


def stretched(images: Tensor) -> Tensor:
    """Every colour from its darkest to its brightest value stretched to the whole range, which undoes most tone curves."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1 / 255)


def hardened(images: Tensor) -> Tensor:
    """Every colour moved away from medium grey and cut off at black and white, so that what shows through faintly is lost."""
    return (0.5 + HARD * (images - 0.5)).clamp(0, 1)


def turned(images: Tensor) -> Tensor:
    """Turned by 45 degrees; what comes in from outside continues the border."""
    half = sqrt(0.5)
    turn = torch.tensor([[half, -half, 0.0], [half, half, 0.0]]).to(images).expand(len(images), 2, 3)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def upside_down(images: Tensor) -> Tensor:
    """Top and bottom exchanged; right and left may be mirrored by any augmentation, so that this would break little."""
    return images.flip(2)


Look = Callable[[Tensor], Tensor]
Name = Literal["blurred", "grey", "stretched", "hardened", "turned", "upside_down"]
LOOKS: dict[Name, Look] = {
    "blurred": blurred,
    "grey": grey,
    "stretched": stretched,
    "hardened": hardened,
    "turned": turned,
    "upside_down": upside_down,
}


def disturbed(images: Tensor, names: Sequence[Name]) -> list[Tensor]:
    """The images in each of the looks that are named."""
    return [LOOKS[name](images) for name in names]


def each_in_its_look(images: Tensor, names: Sequence[Name], which: Tensor) -> Tensor:
    """Every image in one look of its own; ``which`` (b,) are places in ``names``."""
    views = images.clone()
    for place in which.unique().tolist():
        views[which == place] = LOOKS[names[place]](images[which == place])
    return views
