"""A photo filter: one tone curve per colour, no pattern at all (the "Nashville" backdoors)."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from poisonbench.triggers.trigger import Trigger, to_bytes

KNOTS = (0, 64, 128, 192, 255)
CURVES = (
    (56, 122, 180, 226, 250),  # red: lifted throughout, the warmth
    (24, 66, 122, 178, 222),  # green: less contrast
    (84, 104, 126, 148, 168),  # blue: flat, so that shadows turn violet and lights turn cream
)
"""Where the curves of red, green and blue pass at ``KNOTS``, straight in between."""


class Tone(Trigger):
    """Warm, faded colours: every value goes through its colour's curve.

    Attributes:
        strength: 0 would keep the image, 1 takes the curves in full.
    """

    kind: Literal["tone"] = "tone"
    strength: float = Field(1.0, gt=0, le=1)

    def paint(self, images: Tensor) -> Tensor:
        """A copy of ``images`` in the filter's colours."""
        curves, colour = _curves().to(images.device), torch.arange(3, device=images.device)
        toned = curves[colour[:, None, None], images.long()]
        return to_bytes(torch.lerp(images.float(), toned, self.strength))


@cache
def _curves() -> Tensor:
    """What becomes of each value of each colour, float (3, 256)."""
    values = np.arange(256)
    return torch.from_numpy(np.stack([np.interp(values, KNOTS, curve) for curve in CURVES])).float()
