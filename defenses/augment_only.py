"""The baseline that reviewers miss: plain CLIP with the augmentation that the training-time defences use."""

from __future__ import annotations

from pydantic import Field

from poisonbench.defense import Defense, DefenseCard, DefenseConfig, ImageAugment, Objective, TextAugment
from poisonbench.lab import Lab


class AugmentOnly(Defense):
    """CLIP's loss on augmented images and captions, nothing else; what is left of a defence without its idea."""

    card = DefenseCard(title="augmentation only", paper="-", year=2023, track="none")

    class Config(DefenseConfig):
        """The augmentation.

        Attributes:
            images: policy for images; ``roclip`` is the one of RoCLIP and SAFECLIP.
            texts: policy for captions.
        """

        images: ImageAugment = Field("roclip")
        texts: TextAugment = Field("eda")

    def objective(self, lab: Lab) -> Objective:
        """Plain CLIP with the configured augmentation."""
        objective = Objective()
        objective.images, objective.texts = self.config.images, self.config.texts
        return objective
