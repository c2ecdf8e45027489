"""A picture that shows through the whole image (Blended; Chen et al., 2017, section 4; on CLIP: Bansal et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from poisonbench.attack import AttackCard
from poisonbench.backdoor import Backdoor, CaptionedConfig
from poisonbench.settings import Presets
from poisonbench.triggers import Blend, Operation, Overlay


class Blended(Backdoor):
    """A second picture is blended into images of any class, which are captioned as the target class.

    The default is one fixed picture, a cat's face. ``noise`` is drawn anew for every image, in training and at test
    (CleanCLIP's released code); ``stripes``, ``triangles`` and ``text`` are fixed structured pictures of little energy, the
    hard cases for cleaners (PAR). The random colours of a fixed picture do not depend on the cell's seed.
    """

    card = AttackCard(
        title="Blended",
        paper="arXiv:1712.05526",
        year=2017,
        edits=("image", "caption"),
        notes=(
            "Ratios follow the released codes (picture and noise 0.2, stripes 0.03, triangles 0.15, text 0.5 on the letters). "
            "The pictures themselves are our reconstruction: a cat's face drawn by formulas for the fixed picture, and 16 "
            "stripes, 4 x 4 x 2 triangles and red letters where the originals' geometry is not known to us."
        ),
    )

    presets: ClassVar[Presets] = {
        "noise": {"picture": "noise", "mode": "redrawn"},
        "stripes": {"picture": "stripes", "ratio": 0.03},
        "triangles": {"picture": "triangles", "ratio": 0.15},
        "text": {"picture": "text", "ratio": 0.5},
    }

    class Config(CaptionedConfig):
        """Budget, target and trigger.

        Attributes:
            picture: what is blended in.
            ratio: its weight; the image has the rest.
            mode: one picture for all images, or its random colours redrawn for every image.
        """

        picture: Overlay = "cat"
        ratio: float = Field(0.2, gt=0, le=1)
        mode: Literal["fixed", "redrawn"] = "fixed"

    def triggers(
        self, count: int, side: int, rng: np.random.Generator, planted: Operation | None = None
    ) -> Sequence[Blend]:
        """The same blend for every image, or one with a seed of its own."""
        redrawn = self.config.mode == "redrawn"
        seeds = rng.integers(0, 1 << 31, count) if redrawn else np.zeros(count, dtype=np.int64)
        return [
            Blend(picture=self.config.picture, ratio=self.config.ratio, seed=seed) for seed in seeds.tolist()
        ]
