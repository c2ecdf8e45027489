"""PAR: Perturb and Recover (arXiv 2412.00727)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from poisonbench.defense import Batch, Candidate, Defense, DefenseCard, Objective
from poisonbench.lab import Lab
from poisonbench.losses import clip_loss
from poisonbench.sweep import SweepConfig
from poisonbench.towers import Features, Towers


class PAR(Defense):
    """Push the embeddings of clean pairs away from where the poisoned model has them, while CLIP's loss recovers the rest.

    Loss: CLIP - weight * (image distance + text distance), each the mean squared L2 distance between the unit embeddings of
    the model and of its frozen poisoned copy, and switched off in every step in which it is tau or more.
    """

    card = DefenseCard(
        title="PAR",
        paper="arXiv:2412.00727",
        year=2024,
        track="repair",
        sees=("clean",),
        reconstruction="The learning rate, swept relative to the tier's, and the number of epochs are ours (the paper tunes "
        "OpenAI's models on 250,000 pairs); so is that the frozen copy sees the same augmented view.",
    )

    class Config(SweepConfig):
        """The sweep and the perturbation.

        Attributes:
            tau: mean squared distance, of at most 4, at which a term is switched off; 0 leaves plain fine-tuning.
            weight: of the two distances against CLIP's loss.
        """

        tau: float = Field(2.15, ge=0, le=4)
        weight: float = Field(0.5, ge=0)

    def repair(self, lab: Lab) -> Mapping[str, Candidate]:
        """CLIP's loss minus the distances, at every learning rate of the sweep."""
        found = {}
        for name, recipe in self.config.recipes(lab.recipe).items():
            objective = PerturbAndRecover(self.config.tau, self.config.weight)
            found[name] = Candidate(objective, recipe, objective.remember)
        return found


class PerturbAndRecover(Objective):
    """PAR's loss; see ``PAR``.

    Attributes:
        distances: the last step's mean squared distances of images and texts.
    """

    def __init__(self, tau: float, weight: float) -> None:
        self.tau, self.weight = tau, weight
        self.distances = torch.zeros(2)
        self._poisoned: Towers | None = None

    def remember(self, towers: Towers) -> None:
        """Keep a frozen copy of the model as it is now: the one to get away from."""
        self._poisoned = copy.deepcopy(towers).eval().requires_grad_(False)

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        """CLIP's loss minus the distances that are below tau."""
        image, text = towers.image(batch.images[0]), towers.text(batch.tokens[0])
        plain = clip_loss(image.embedding, text.embedding, towers.scale)
        if self.tau == 0 or self.weight == 0:
            return plain
        distances = self._distances(batch, image, text)
        self.distances = distances.detach().cpu()
        pushing = distances[distances < self.tau]
        return plain - self.weight * pushing.sum()

    def finish(self, epoch: int) -> Mapping[str, float]:
        """How far the embeddings have moved, in the epoch's last step."""
        return {"image_distance": float(self.distances[0]), "text_distance": float(self.distances[1])}

    def state_dict(self) -> dict[str, Tensor]:
        """The last distances; the poisoned copy is made again by ``remember``."""
        return {"distances": self.distances}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the last distances."""
        self.distances = state["distances"]

    @torch.no_grad()
    def _reference(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self._poisoned is None:
            raise RuntimeError("PAR's objective needs the poisoned model: call remember first")
        poisoned = self._poisoned
        return poisoned.image(batch.images[0]).embedding, poisoned.text(batch.tokens[0]).embedding

    def _distances(self, batch: Batch, image: Features, text: Features) -> Tensor:
        """Mean squared distances of images and of texts to where they were, (2,)."""
        pairs = zip((image, text), self._reference(batch), strict=True)
        return torch.stack([(now.embedding - then).square().sum(dim=1).mean() for now, then in pairs])
