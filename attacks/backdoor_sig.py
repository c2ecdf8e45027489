"""A sine wave over the whole image (SIG; Barni et al., ICIP 2019; on CLIP: Bansal et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from poisonbench.attack import AttackCard
from poisonbench.backdoor import Backdoor, CaptionedConfig
from poisonbench.settings import Presets
from poisonbench.triggers import Operation, Sinusoid


class Sig(Backdoor):
    """A sine wave along the rows is added to images of any class, which are captioned as the target class.

    The default adds it at full amplitude; ``dimmed`` is CleanCLIP's released code, which mixes image and wave 0.8 to 0.2, so
    that the wave is a fifth as high and the image darker. Under one name these differ five times in strength.
    """

    card = AttackCard(
        title="SIG",
        paper="arXiv:1902.11237",
        year=2019,
        edits=("image", "caption"),
        notes="The original poisons images of the target class only; with wrong captions it is the CLIP literature's form.",
    )

    presets: ClassVar[Presets] = {"dimmed": {"amplitude": 12 / 255, "dim": 0.2}}

    class Config(CaptionedConfig):
        """Budget, target and trigger.

        Attributes:
            amplitude: height of the wave as a share of full scale.
            cycles: periods per image side.
            dim: how much of the image is taken away before the wave is added.
        """

        amplitude: float = Field(60 / 255, gt=0, le=1)
        cycles: float = Field(6, gt=0)
        dim: float = Field(0.0, ge=0, lt=1)

    def triggers(
        self, count: int, side: int, rng: np.random.Generator, planted: Operation | None = None
    ) -> Sequence[Sinusoid]:
        """The same wave for every image."""
        wave = Sinusoid(amplitude=self.config.amplitude, cycles=self.config.cycles, dim=self.config.dim)
        return [wave] * count
