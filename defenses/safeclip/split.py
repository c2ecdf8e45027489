"""Which pairs are safe enough for the cross-modal loss: a threshold first, then a share that grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench.defenses.safeclip.mixture import Floats, Mixture

Flags = npt.NDArray[np.bool_]
Ranking = Literal["similarity", "posterior"]


class Split:
    """Safe and risky pairs by the cosine of image and caption (sizes as in the released code).

    Attributes:
        similarity: float32, (n,): the last cosine of every pair.
        safe: bool, (n,): what the last division found; all pairs before the first one.
        first: share of the pairs that were safe at the first division; 0 before it.
        made: divisions so far.
        growth: what the safe share gains from one division to the next.
    """

    def __init__(self, rows: int, threshold: float, growth: float, cap: float, ranking: Ranking) -> None:
        """``threshold`` makes the first division, ``cap`` bounds the safe share of later ones."""
        self._threshold, self.growth, self._cap, self._ranking = threshold, growth, cap, ranking
        self.similarity = torch.zeros(rows)
        self.safe = torch.ones(rows, dtype=torch.bool)
        self.first, self.made = 0.0, 0

    def share(self, number: int) -> float:
        """The safe share of the pairs at division ``number``, counted from 0; known once the first was made."""
        return min(self.first + number * self.growth, self._cap) if number else self.first

    def note(self, rows: Tensor, similarity: Tensor) -> None:
        """Keep the cosines (b,) of ``rows`` (b,)."""
        self.similarity[rows] = similarity.detach().float().cpu()

    def renew(self) -> dict[str, float]:
        """Divide the pairs anew; returns what should be logged of it."""
        cosine = self.similarity.double().numpy()
        mixture = Mixture.fitted(cosine)
        posterior = mixture.posterior(cosine)
        found = {
            # The same order as that of the cosines, which settle its ties.
            "similarity": self._chosen(mixture.monotone_posterior(cosine), cosine),
            "posterior": self._chosen(posterior, cosine),
        }
        self.safe = torch.from_numpy(found[self._ranking])
        safe = float(self.safe.double().mean())
        self.first, self.made = self.first if self.made else safe, self.made + 1
        return {
            "safe_next": safe,
            "posterior_against_similarity": _contradictions(cosine, posterior),
            "split_disputed": float(np.mean(found["similarity"] != found["posterior"])),
        }

    def _chosen(self, key: Floats, then: Floats) -> Flags:
        """Which pairs are safe by ``key``, ties by ``then``."""
        if not self.made:
            return key >= self._threshold
        chosen = np.zeros(len(key), dtype=bool)
        chosen[np.lexsort((then, key))[len(key) - int(self.share(self.made) * len(key)) :]] = True
        return chosen

    def state_dict(self) -> dict[str, Tensor]:
        """The cosines, the division and its size."""
        sizes = {"first": torch.tensor(self.first, dtype=torch.float64), "made": torch.tensor(self.made)}
        return {"similarity": self.similarity.clone(), "safe": self.safe.clone(), **sizes}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.similarity, self.safe = state["similarity"].clone(), state["safe"].clone()
        self.first, self.made = float(state["first"]), int(state["made"])


def _contradictions(cosine: Floats, posterior: Floats) -> float:
    """The share of neighbours in the order of cosines that the posterior ranks the other way round."""
    steps = np.diff(posterior[np.argsort(cosine, kind="stable")])
    return float(np.mean(steps < 0)) if len(steps) else 0.0
