"""Images whose global embedding is made by few of their regions.

A local trigger that the model has learned is loud: its region outweighs all others in the pooled embedding. In the mean of the
unit tokens, as in the marginals of the transport, every region counts the same, so the two disagree where something is loud.
The test needs no caption and finds what the test of soundness cannot: poisons that the model already believes. Ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.towers import Features

RECENT = 4096
"""Rows that the running threshold is taken from."""


def even(features: Features) -> Tensor:
    """The direction of the mean of the real unit tokens, in which every region counts the same: (b, d)."""
    return F.normalize((features.tokens.float() * features.mask.unsqueeze(-1)).sum(dim=1), dim=1)


class Loudness:
    """How much the global embedding and the regions of every image disagree, kept over the epochs.

    Attributes:
        disagreement: (n,) one minus their cosine, a running mean over epochs.
        seen: (n,) whether a row has been looked at.
    """

    def __init__(self, rows: int, memory: float, share: float) -> None:
        """The ``share`` of the ``rows`` that disagree most is loud; ``memory`` is how much of earlier looks is kept."""
        self.disagreement, self.seen = torch.zeros(rows), torch.zeros(rows, dtype=torch.bool)
        self._memory, self._share, self._recent = memory, share, torch.zeros(0)

    def loud(self, rows: Tensor, looks: Sequence[Features]) -> Tensor:
        """Which of b images are loud in any look at them: bool (b,), on the CPU, from their int64 (b,) rows and features."""
        now = torch.stack([1 - (even(look) * look.embedding.float()).sum(dim=1) for look in looks])
        now = now.amax(dim=0).cpu()
        kept = torch.where(self.seen[rows], self._memory, 0.0)
        self.disagreement[rows] = kept * self.disagreement[rows] + (1 - kept) * now
        self.seen[rows] = True
        self._recent = torch.cat([self._recent, self.disagreement[rows]])[-RECENT:]
        return self.disagreement[rows] > torch.quantile(self._recent, 1 - self._share)

    def state_dict(self) -> dict[str, Tensor]:
        """Looks and threshold as tensors."""
        return {
            "disagreement": self.disagreement.clone(), "seen": self.seen.clone(), "recent": self._recent.clone(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.disagreement, self.seen, self._recent = (
            state[key].clone() for key in ("disagreement", "seen", "recent")
        )
