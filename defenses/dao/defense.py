"""Filters that remove local outliers (Huang et al., ICLR 2025, arXiv 2502.01385)."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from poisonbench.defense import Curation, Defense, DefenseCard
from poisonbench.defenses.dao import scores
from poisonbench.defenses.dao.neighbours import Neighbours, nearest
from poisonbench.filtering import BudgetConfig, without_most_suspicious
from poisonbench.lab import Lab
from poisonbench.pairs import Pairs

INFERRED = (
    "Ours: embeddings are unit vectors (the release takes them before normalisation), batches are smaller and drawn several "
    "times, and a fixed share of the rows is removed."
)


def card(title: str) -> DefenseCard:
    """The card of one of the siblings."""
    return DefenseCard(
        title=title,
        paper="arXiv:2502.01385",
        year=2025,
        track="filter",
        sees=("undefended",),
        reconstruction=INFERRED,
    )


class LocalOutlierFilter(Defense):
    """Remove the rows whose image embedding lies in a sparser place than its neighbours."""

    class Config(BudgetConfig):
        """Neighbourhood and budget.

        Attributes:
            k: neighbours; more than a batch's poisons, which would otherwise be each other's.
            batch: rows among which neighbours are sought: the data is shuffled and cut into batches of about this size.
            rounds: how often the data is shuffled; scores are averaged.
        """

        k: int = Field(32, ge=1)
        batch: int = Field(256, ge=2)
        rounds: int = Field(4, ge=1)

    @abstractmethod
    def outlierness(self, near: Neighbours) -> Tensor:
        """How much of an outlier every point is, (n,), from its k nearest neighbours."""

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        """Embed the images by the undefended model, which has seen all rows, and remove the largest outliers.

        It must be trained to the end: before the backdoor is learnt its pairs are no outliers.
        """
        towers = lab.undefended()
        points = lab.embed_images(towers, pairs).to(towers.device)
        return without_most_suspicious(self.scores(points, lab), self.config.remove)

    def scores(self, points: Tensor, lab: Lab) -> npt.NDArray[np.float64]:
        """The outlierness of every point (n, d) among those of its random batch, averaged over the rounds: (n,).

        O(rounds n batch d) time: the data's size enters linearly.
        """
        found = torch.zeros(len(points), dtype=torch.float64)
        for turn in range(self.config.rounds):
            order = torch.randperm(len(points), generator=lab.rng("batches", turn))
            for rows in order.tensor_split(max(1, len(points) // self.config.batch)):
                near = nearest(points[rows.to(points.device)], min(self.config.k, len(rows) - 1))
                found[rows] += self.outlierness(near).cpu() / self.config.rounds
        return found.numpy()


class DAO(LocalOutlierFilter):
    """Remove outliers by the density ratio to their neighbours, weighted by the neighbours' local intrinsic dimension.

    Huang et al. find it the best single detector of poisoned pairs in CLIP's training data; the score is Anderberg et al.'s.
    """

    card = card("DAO filter")

    def outlierness(self, near: Neighbours) -> Tensor:
        """Dimensionality-aware outlierness."""
        return scores.dao(near)


class SLOF(LocalOutlierFilter):
    """Remove outliers by the ratio of their k-distance to that of their neighbours (simplified local outlier factor)."""

    card = card("SLOF filter")

    def outlierness(self, near: Neighbours) -> Tensor:
        """Simplified local outlier factor."""
        return scores.slof(near)


class KDistance(LocalOutlierFilter):
    """Remove the rows that are farthest from their k-th nearest neighbour; the simplest of the local outlier filters."""

    card = card("k-distance filter")

    def outlierness(self, near: Neighbours) -> Tensor:
        """Distance to the k-th neighbour."""
        return scores.k_distance(near)
