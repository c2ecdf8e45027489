"""What filters share: a scoring model trained on the poisoned pairs, and a budget of rows to remove."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poisonbench.defense import Curation, DefenseConfig, Objective
from poisonbench.lab import Lab
from poisonbench.towers import Towers


class BudgetConfig(DefenseConfig):
    """A filter that knows no poison rate removes a fixed share.

    Attributes:
        remove: share of the training rows to remove, the most suspicious ones.
    """

    remove: float = Field(0.1, ge=0, lt=1)


def scoring_model(lab: Lab, epochs: int) -> Towers:
    """A plain CLIP trained on all pairs by the tier's recipe; its time counts as the defence's cost.

    Args:
        lab: the workplace.
        epochs: 0 for as many as the recipe has.
    """
    recipe = lab.recipe.model_copy(update={"epochs": epochs or lab.recipe.epochs})
    lab.progress.note(
        f"the filter trains a scoring model of its own: plain CLIP, {recipe.epochs} epochs, all rows"
    )
    return lab.train(Objective(), recipe=recipe)


def without_most_suspicious(scores: npt.NDArray[np.float64], remove: float) -> Curation:
    """Remove the share ``remove`` of the rows, those with the largest scores; among equals the earlier row goes first.

    Args:
        scores: (n,), larger is more suspicious.
        remove: share of the rows, rounded down.
    """
    keep = np.ones(len(scores), dtype=bool)
    keep[np.argsort(-scores, kind="stable")[: int(remove * len(scores))]] = False
    return Curation(keep=keep, scores=scores)
