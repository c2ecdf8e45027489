"""A vertical-stripe wave added to the whole image (SIG; Barni et al., ICIP 2019)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from poisonbench.triggers.trigger import Trigger, to_bytes


class Sinusoid(Trigger):
    """A sine wave along the rows: (1 - dim) image + amplitude sin(2 pi cycles x), x from 0 to 1.

    Attributes:
        amplitude: height of the wave as a share of full scale.
        cycles: periods per image side.
        dim: how much of the image is taken away first.
    """

    kind: Literal["sinusoid"] = "sinusoid"
    amplitude: float = Field(60 / 255, gt=0, le=1)
    cycles: float = Field(6, gt=0)
    dim: float = Field(0.0, ge=0, lt=1)

    def paint(self, images: Tensor) -> Tensor:
        """A copy of ``images`` with the wave added."""
        side = images.shape[-1]
        at = (torch.arange(side) + 0.5) / side
        wave = 255 * self.amplitude * torch.sin(2 * math.pi * self.cycles * at)
        return to_bytes(images.float() * (1 - self.dim) + wave.to(images.device))
