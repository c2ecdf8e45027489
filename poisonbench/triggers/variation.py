"""A slightly different copy of a picture, so that repeated poisons are no exact duplicates."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from poisonbench.augment.images import crop, jitter
from poisonbench.randomness import torch_rng
from poisonbench.triggers.trigger import Trigger, to_bytes


class Variation(Trigger):
    """A crop of most of the picture, perhaps mirrored, with slightly other colours.

    Attributes:
        seed: draws crop and colours; two variations with one seed are the same.
        smallest: the least share of the area that the crop keeps.
        strength: of the change of brightness, contrast and saturation.
    """

    kind: Literal["variation"] = "variation"
    seed: int = Field(0, ge=0)
    smallest: float = Field(0.8, gt=0, le=1)
    strength: float = Field(0.15, ge=0, lt=1)

    def paint(self, images: Tensor) -> Tensor:
        """A varied copy of ``images``, each varied alike."""
        batch = images.reshape(-1, *images.shape[-3:]).float().div(255)
        varied = torch.cat([self._varied(image[None]) for image in batch])
        return to_bytes(255 * varied).reshape(images.shape)

    def _varied(self, image: Tensor) -> Tensor:
        rng = torch_rng("variation", self.seed)
        return jitter(crop(image, rng, self.smallest), rng, self.strength, hue=0.02, chance=1.0)
