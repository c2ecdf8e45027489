"""BDetCLIP (Niu et al., ICML 2025, arXiv 2405.15269)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import torch
import yaml
from pydantic import Field
from torch import Tensor

from poisonbench.defense import Defense, DefenseCard, DefenseConfig, Screen
from poisonbench.lab import Lab
from poisonbench.settings import Settings, validated
from poisonbench.towers import Towers


class Bank(Settings):
    """Descriptions with ``{c}`` for the class name.

    Attributes:
        benign: what a picture of the class shows.
        malignant: the class name among words that describe nothing.
    """

    benign: tuple[str, ...] = Field(min_length=1)
    malignant: tuple[str, ...] = Field(min_length=1)


class BDetCLIP(Defense):
    """Flag images that do not care whether class names are described or drowned in nonsense.

    A clean image moves towards the descriptions of what it may show and away from nonsense; an image with a trigger heeds the
    trigger alone. The score is the mean over classes of cos(image, benign texts) - cos(image, malignant texts), low for a
    triggered image; the threshold flags a given share of the clean split.
    """

    card = DefenseCard(
        title="BDetCLIP",
        paper="arXiv:2405.15269",
        year=2025,
        track="screening",
        sees=("clean", "classes"),
        reconstruction="Both kinds of text come from a fixed bank of templates for any class name, where the paper asks a "
        "language model about each class; the threshold's false positive rate is ours.",
    )

    class Config(DefenseConfig):
        """The threshold.

        Attributes:
            false_positives: share of the clean split that is flagged.
        """

        false_positives: float = Field(0.05, gt=0, lt=1)

    def screen(self, towers: Towers, lab: Lab) -> Screen:
        """A detector of triggered images for ``towers``, its threshold set on the clean split."""
        towers.eval()
        direction = contrast(towers, lab, lab.classes[0])

        @torch.inference_mode()
        def score(images: Tensor) -> npt.NDArray[np.float64]:
            return -(towers.image(images).embedding.cpu() @ direction).double().numpy()

        clean = -(lab.embed_images(towers, lab.clean) @ direction).double().numpy()
        return Screen(score, float(np.quantile(clean, 1 - self.config.false_positives)))


def contrast(towers: Towers, lab: Lab, classes: Sequence[str]) -> Tensor:
    """The direction (d,) whose product with an image embedding is the paper's score.

    Mean cosines to texts are products with mean embeddings, so classes and descriptions need not be kept apart.
    """
    bank = description_bank()
    benign, malignant = (
        lab.embed_captions(towers, list(_texts(templates, classes))).mean(dim=0)
        for templates in (bank.benign, bank.malignant)
    )
    return benign - malignant


@cache
def description_bank() -> Bank:
    """The bank that is shipped with the suite."""
    text = files(__package__).joinpath("bank.yaml").read_text(encoding="utf-8")
    return validated(Bank, yaml.safe_load(text), "BDetCLIP's bank.yaml")


def _texts(templates: Iterable[str], classes: Sequence[str]) -> Iterable[str]:
    return (template.replace("{c}", name) for template in templates for name in classes)
