"""CleanCLIP (Bansal et al., ICCV 2023, arXiv 2303.03323)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from poisonbench.defense import (
    Batch,
    Candidate,
    Defense,
    DefenseCard,
    ImageAugment,
    Objective,
    TextAugment,
)
from poisonbench.lab import Lab
from poisonbench.loader import Loader
from poisonbench.losses import clip_loss, rows_cross_entropy
from poisonbench.sweep import SweepConfig
from poisonbench.towers import Towers


class CleanCLIP(Defense):
    """Fine-tune on clean pairs with CLIP's loss plus a self-supervised one per modality, which spurious features do not serve.

    Loss: lambda1 * CLIP(I, T) + lambda2 / 2 * [CE(s I I'^t) + CE(s T T'^t)], where I', T' embed an augmented
    image and caption of the same row, and the rows of I and T look for their own. As in the released code, originals and
    augmented inputs pass the towers together, so that normalisation over the batch sees both.
    """

    card = DefenseCard(
        title="CleanCLIP",
        paper="arXiv:2303.03323",
        year=2023,
        track="repair",
        sees=("clean",),
        reconstruction="Originals are what the tier calls a plain view (the paper has no augmentation there); the learning "
        "rate is swept relative to the tier's, and 8 epochs of the tier's batch replace 10 of batch 64.",
    )

    class Config(SweepConfig):
        """The sweep, the weights of the terms, and the augmentation.

        Attributes:
            lambda1: of CLIP's loss (0: self-supervision alone).
            lambda2: of the unimodal losses (0: plain fine-tuning).
            images: how an image is augmented; the paper takes AutoAugment.
            texts: how a caption is augmented; the paper takes EDA, drawn once per caption.
        """

        lambda1: float = Field(1.0, ge=0)
        lambda2: float = Field(1.0, ge=0)
        images: ImageAugment = Field("auto")
        texts: TextAugment = Field("eda")

    def repair(self, lab: Lab) -> Mapping[str, Candidate]:
        """The same loss at every learning rate of the sweep."""
        views, recipes = lab.loader(lab.clean), self.config.recipes(lab.recipe)
        return {name: Candidate(Cleaning(self.config, views), recipe) for name, recipe in recipes.items()}


class Cleaning(Objective):
    """CleanCLIP's loss; see ``CleanCLIP``."""

    def __init__(self, config: CleanCLIP.Config, views: Loader) -> None:
        """``views`` draws the augmented half of every pair of views from the clean split."""
        self.config = config
        self._loader = views

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        """CLIP's loss and the unimodal ones, by their weights."""
        config = self.config
        if not config.lambda2:
            return config.lambda1 * super().loss(batch, towers)
        images, tokens = self._augmented(batch)
        image, image_ = towers.image(torch.cat([batch.images[0], images])).embedding.chunk(2)
        text, text_ = towers.text(torch.cat([batch.tokens[0], tokens])).embedding.chunk(2)
        scale = towers.scale
        within = rows_cross_entropy(scale * image @ image_.T) + rows_cross_entropy(scale * text @ text_.T)
        return config.lambda1 * clip_loss(image, text, scale) + config.lambda2 / 2 * within

    def _augmented(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The pictures and the captions of ``batch`` once more, augmented."""
        rows = batch.rows.numpy()
        images = self._loader.images(rows, self.config.images, (batch.epoch, "augmented", batch.step))
        return images, self._loader.tokens(rows, self.config.texts, batch.epoch)
