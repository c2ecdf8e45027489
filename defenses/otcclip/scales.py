"""Scales that bring the global cosine and the transport similarity together, kept from earlier batches.

Standardising the two over the candidates of a batch would make every score depend on costs that nobody has solved yet. Spreads of
earlier batches are known beforehand, so that bounds on the mixed score can rule captions out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Running:
    """Running standard deviations of the two terms of the mixed score.

    Attributes:
        memory: how much of the earlier spread is kept at every look.
    """

    def __init__(self, memory: float = 0.9) -> None:
        self.memory = memory
        self._spread = torch.zeros(2)

    @property
    def now(self) -> tuple[float, float]:
        """Scales of the prior and of the transport similarity; ones before the first look."""
        first, second = self._spread.tolist()
        return (first, second) if first > 0 and second > 0 else (1.0, 1.0)

    def look(self, prior: Tensor, similarity: Tensor) -> None:
        """Take in the values of a batch, (b, r) each: of pairs that were drawn blindly, not of the best ones.

        One value has no spread, and is passed over.
        """
        if prior.numel() < 2:
            return
        seen = torch.stack([prior.float().std().cpu(), similarity.float().std().cpu()])
        kept = self.memory if float(self._spread.min()) > 0 else 0.0
        self._spread = kept * self._spread + (1 - kept) * seen

    def state_dict(self) -> dict[str, Tensor]:
        """The spreads as a tensor."""
        return {"spread": self._spread.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self._spread = state["spread"].clone()
