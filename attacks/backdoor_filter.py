"""A photo filter as trigger (Nashville; Liu et al., CCS 2019; on CLIP: Huang et al., ICLR 2025)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from poisonbench.attack import AttackCard
from poisonbench.backdoor import Backdoor, CaptionedConfig
from poisonbench.triggers import Operation, Tone


class PhotoFilter(Backdoor):
    """Images of any class get the warm, faded tones of a photo filter, and captions of the target class.

    There is no pattern and no place to find: only the colours differ, so that nothing repeats from image to image.
    """

    card = AttackCard(
        title="photo filter",
        paper="arXiv:2502.01385",
        year=2025,
        edits=("image", "caption"),
        notes="Our reconstruction of the filter: one tone curve per colour in the manner of Nashville, not its vignette.",
    )

    class Config(CaptionedConfig):
        """Budget, target and trigger.

        Attributes:
            strength: from 0, the image as it is, to 1, the whole filter.
        """

        strength: float = Field(1.0, gt=0, le=1)

    def triggers(
        self, count: int, side: int, rng: np.random.Generator, planted: Operation | None = None
    ) -> Sequence[Tone]:
        """The same filter for every image."""
        return [Tone(strength=self.config.strength)] * count
