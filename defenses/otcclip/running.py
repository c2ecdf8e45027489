"""What is known of every row, averaged over the epochs, and what was seen lately of all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

RECENT = 4096
"""Values that are recent."""


class Running:
    """A running mean per row.

    Attributes:
        mean: (n,) of the values seen so far, newer ones counting more.
        seen: bool (n,) whether a row has a value yet.
    """

    def __init__(self, rows: int, memory: float) -> None:
        """``memory`` is how much of a row's earlier mean is kept when a value comes in."""
        self.mean, self.seen = torch.zeros(rows), torch.zeros(rows, dtype=torch.bool)
        self._memory = memory

    def update(self, rows: Tensor, values: Tensor) -> Tensor:
        """Take in values (b,) of int64 rows (b,); their means (b,)."""
        kept = torch.where(self.seen[rows], self._memory, 0.0)
        self.mean[rows] = kept * self.mean[rows] + (1 - kept) * values
        self.seen[rows] = True
        return self.mean[rows]

    def state_dict(self) -> dict[str, Tensor]:
        """Means and who has one."""
        return {"mean": self.mean.clone(), "seen": self.seen.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.mean, self.seen = state["mean"].clone(), state["seen"].clone()


class Recent:
    """The last ``RECENT`` values seen, as a sample that thresholds are taken from.

    Attributes:
        values: (m,), newest last.
    """

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.values = torch.zeros(0)

    def add(self, values: Tensor) -> None:
        """Take in values (b,); the oldest go."""
        self.values = torch.cat([self.values, values])[-RECENT:]

    def above(self, share: Tensor | float) -> Tensor:
        """The value that only a ``share`` of the recent ones exceed, infinite where none was seen: of the shape of ``share``."""
        below = torch.as_tensor(1 - share)
        return torch.quantile(self.values, below) if len(self.values) else torch.full_like(below, torch.inf)

    def state_dict(self) -> dict[str, Tensor]:
        """The values."""
        return {"values": self.values.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.values = state["values"].clone()
