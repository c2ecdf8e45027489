"""Which pairs are safe enough for the cross-modal loss: a threshold first, then a share that grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from poisonbench.defenses.safeclip.mixture import Floats, Mixture

Ranking = Literal["similarity", "posterior"]


class Split:
    """Safe and risky pairs by the cosine of image and caption (sizes as in the released code).

    Attributes:
        similarity: float32, (n,): the last cosine of every pair.
        safe: bool, (n,): what the last division found; all pairs before the first one.
        share: of the pairs that will be safe at the next division, once there was a first one.
        first: share of the pairs that were safe at the first division; 0 before it.
        growth: what the safe share gains from one division to the next.
    """

    def __init__(self, rows: int, threshold: float, growth: float, cap: float, ranking: Ranking) -> None:
        """``threshold`` makes the first division, ``cap`` bounds the safe share of later ones."""
        self._threshold, self.growth, self._cap, self._ranking = threshold, growth, cap, ranking
        self.similarity = torch.zeros(rows)
        self.safe = torch.ones(rows, dtype=torch.bool)
        self.share = self.first = 0.0

    def note(self, rows: Tensor, similarity: Tensor) -> None:
        """Keep the cosines (b,) of ``rows`` (b,)."""
        self.similarity[rows] = similarity.detach().float().cpu()

    def renew(self) -> dict[str, float]:
        """Divide the pairs anew; returns what should be logged of it."""
        cosine = self.similarity.double().numpy()
        mixture = Mixture.fitted(cosine)
        posterior, monotone = mixture.posterior(cosine), mixture.monotone_posterior(cosine)
        if self.first:
            keys = {"similarity": cosine, "posterior": posterior}
            found = {name: _top(int(self.share * len(cosine)), key, cosine) for name, key in keys.items()}
        else:
            keys = {"similarity": monotone, "posterior": posterior}
            found = {name: key >= self._threshold for name, key in keys.items()}
        chosen = found[self._ranking]
        self.safe = torch.from_numpy(chosen)
        self.first = self.first or max(float(chosen.mean()), 1 / len(chosen))
        self.share = min((self.share or self.first) + self.growth, self._cap)
        return {
            "safe_next": float(chosen.mean()),
            "posterior_against_similarity": _contradictions(cosine, posterior),
            "split_disputed": float(np.mean(found["similarity"] != found["posterior"])),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The cosines, the division and its size."""
        sizes = {"share": torch.tensor(self.share).double(), "first": torch.tensor(self.first).double()}
        return {"similarity": self.similarity.clone(), "safe": self.safe.clone(), **sizes}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.similarity, self.safe = state["similarity"].clone(), state["safe"].clone()
        self.share, self.first = float(state["share"]), float(state["first"])


def _top(count: int, key: Floats, then: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which are the ``count`` largest by ``key``, ties by ``then``: bool (n,)."""
    chosen = np.zeros(len(key), dtype=bool)
    chosen[np.lexsort((then, key))[len(key) - count :]] = True
    return chosen


def _contradictions(cosine: Floats, posterior: Floats) -> float:
    """The share of neighbours in the order of cosines that the posterior ranks the other way round."""
    steps = np.diff(posterior[np.argsort(cosine, kind="stable")])
    return float(np.mean(steps < 0)) if len(steps) else 0.0
