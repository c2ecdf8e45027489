"""What is known of every row, averaged over the epochs, and what was seen of late."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


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
    """The last values of a stream, as a distribution."""

    def __init__(self, count: int = 4096) -> None:
        """Of the last ``count`` values."""
        self._count, self._values = count, torch.zeros(0)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, values: Tensor) -> None:
        """Take in values (b,)."""
        self._values = torch.cat([self._values, values])[-self._count :]

    def exceeded_by(self, share: float) -> float:
        """What only a ``share`` of the values lies above; infinity while there are none."""
        return float(torch.quantile(self._values, 1 - share)) if len(self) else float("inf")

    def reach(self, values: Tensor) -> Tensor:
        """The share of the recent values that are at least as large as each of (b,), which counts among them itself: (b,)."""
        less = torch.searchsorted(self._values.sort().values, values)
        return (1 + len(self) - less) / (1 + len(self))

    def state_dict(self) -> dict[str, Tensor]:
        """The values."""
        return {"values": self._values.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self._values = state["values"].clone()
