"""Filter by CLIP score: remove the pairs whose image and caption fit worst."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poisonbench.defense import Curation, Defense, DefenseCard
from poisonbench.filtering import BudgetConfig, scoring_model, without_most_suspicious
from poisonbench.lab import Lab
from poisonbench.pairs import Pairs

Cosines = npt.NDArray[np.float64]


class ClipScore(Defense):
    """Remove the pairs with the lowest cosine of image and caption under a CLIP trained on all of them.

    The filter that web-scale data sets are made with (LAION-400M, arXiv 2111.02114), there with a trusted CLIP; here the
    scoring model is trained on the poisoned pairs themselves, and a model that has learnt a backdoor finds that its pairs fit.
    """

    card = DefenseCard(
        title="CLIP-score filter",
        paper="arXiv:2111.02114",
        year=2021,
        track="filter",
        reconstruction="Ours: the scoring model is trained on the poisoned pairs for a few epochs, where LAION takes a trusted "
        "CLIP; the share to remove and the rule with two Gaussians (as in SAFECLIP's split).",
    )

    class Config(BudgetConfig):
        """The rule, the scoring model and the budget.

        Attributes:
            rule: remove a ``quantile``, or the lower of two Gaussians fitted to the cosines (``gmm``; ``remove`` is not used).
            level: ``gmm``: posterior probability of the lower Gaussian from which a pair is removed.
            epochs: of the scoring model, trained on all rows with the tier's recipe; 0 for as many as the recipe has. Few, since
                poisoned pairs fit once they are learnt.
        """

        rule: Literal["quantile", "gmm"] = "quantile"
        level: float = Field(0.5, gt=0, lt=1)
        epochs: int = Field(3, ge=0)

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        """Train a scoring model on all rows, score every pair by its first caption, and remove what the rule says."""
        cosine = self._cosines(pairs, lab)
        if self.config.rule == "quantile":
            return without_most_suspicious(-cosine, self.config.remove)
        return Curation(keep=cosine > lower_end(cosine, self.config.level), scores=-cosine)

    def _cosines(self, pairs: Pairs, lab: Lab) -> Cosines:
        towers = scoring_model(lab, self.config.epochs)
        image = lab.embed_images(towers, pairs)
        text = lab.embed_captions(towers, [options[0] for options in pairs.captions])
        return (image * text).sum(dim=1).double().numpy()


def lower_end(cosine: Cosines, level: float) -> float:
    """The cosine up to which pairs belong to the lower of two Gaussians with at least probability ``level``.

    Only between the two means does the posterior fall steadily; beyond them the wider Gaussian wins on both sides, and the
    worst pairs of all would pass. So the end is sought between the means, and all below it go.

    Returns:
        The end, or minus infinity where not even the lower mean belongs to the lower Gaussian.
    """
    from sklearn.mixture import GaussianMixture

    points = cosine[:, None]
    mixture = GaussianMixture(2, random_state=0).fit(points)  # its only draw is where k-means starts
    low, high = np.argsort(mixture.means_[:, 0])
    between = (cosine >= mixture.means_[low, 0]) & (cosine < mixture.means_[high, 0])
    sure = between & (mixture.predict_proba(points)[:, low] >= level)
    return float(cosine[sure].max()) if sure.any() else -np.inf
