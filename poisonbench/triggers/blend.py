"""A second picture that shows through the whole image (Blended; Chen et al., 2017)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from poisonbench.triggers.overlays import Overlay, overlay
from poisonbench.triggers.trigger import Trigger, to_bytes


class Blend(Trigger):
    """The weighted mean of the image and a picture: (1 - ratio) image + ratio picture.

    Attributes:
        picture: what is blended in; pixels that it leaves open keep the image as it is.
        ratio: the picture's weight.
        seed: draws the random pictures.
    """

    kind: Literal["blend"] = "blend"
    picture: Overlay = "cat"
    ratio: float = Field(0.2, gt=0, le=1)
    seed: int = Field(0, ge=0)

    def paint(self, images: Tensor) -> Tensor:
        """A copy of ``images`` with the picture blended in."""
        pixels, covered = overlay(self.picture, images.shape[-1], self.seed)
        weight = self.ratio * covered.to(images.device)
        return to_bytes(images.float() * (1 - weight) + pixels.to(images.device) * weight)
