"""A fixed deformation of the image (WaNet; Nguyen and Tran, ICLR 2021, section 3.2; on CLIP: Bansal et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from poisonbench.attack import AttackCard
from poisonbench.backdoor import Backdoor, CaptionedConfig
from poisonbench.settings import Presets
from poisonbench.triggers import Operation, Warp
from poisonbench.triggers.warp import FARTHEST


class WaNet(Backdoor):
    """Images of any class are warped by one fixed field and captioned as the target class.

    Both published forms go by this name: the default (k = 224, s = 1 on a canvas of 224 pixels; CleanCLIP, SAFECLIP) moves
    every pixel on its own, a jitter; ``smooth`` (k = 4, s = 0.5 on a canvas of 32 pixels; the original) bends the image.
    """

    card = AttackCard(
        title="WaNet",
        paper="arXiv:2102.10369",
        year=2021,
        edits=("image", "caption"),
        notes=(
            "The field is drawn once per cell and stored in the manifest. Displacements are shares of the side, so that the "
            "warp looks alike at every resolution: s on a canvas of c pixels moves a pixel by s / (2 c) of the side on "
            "average. The original's noise mode, which needs control of the training loop, is left out."
        ),
    )

    presets: ClassVar[Presets] = {"smooth": {"k": 4, "s": 0.5, "canvas": 32}}

    class Config(CaptionedConfig):
        """Budget, target and trigger.

        Attributes:
            k: control points of the field per image side.
            s: strength of the warp, as in the papers.
            canvas: pixels per side of the images that s refers to.
        """

        k: int = Field(224, ge=2, le=1024)
        s: float = Field(1.0, gt=0)
        canvas: int = Field(224, ge=8)

        @property
        def shift(self) -> float:
            """Mean displacement as a share of the image side."""
            return self.s / (2 * self.canvas)

        @model_validator(mode="after")
        def _within_the_picture(self) -> Self:
            if self.shift > FARTHEST:
                raise ValueError(
                    f"field 's': at most {2 * FARTHEST * self.canvas:g} on a canvas of {self.canvas} pixels"
                )
            return self

    def triggers(
        self, count: int, side: int, rng: np.random.Generator, planted: Operation | None = None
    ) -> Sequence[Operation]:
        """The same warp for every image: the planted one, or one with a new field."""
        if planted is not None:
            return [planted] * count
        return [
            Warp(cells=self.config.k, shift=self.config.shift, seed=int(rng.integers(0, 1 << 31)))
        ] * count
