"""First-in-first-out pools of recent rows with whatever is known of them: ids, embeddings, tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


class Pool:
    """A ring buffer of named tensors that share their first dimension; the oldest entries are replaced first.

    Attributes:
        capacity: entries when full.
        entries: name to (filled, ...) tensor; empty until the first push.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._store: dict[str, Tensor] = {}
        self._pushed = 0

    def __len__(self) -> int:
        return min(self._pushed, self.capacity)

    def push(self, **fields: Tensor) -> None:
        """Add entries, (b, ...) per field; a field's shape and type are set by its first push. Gradients are cut."""
        count = len(next(iter(fields.values())))
        for name, value in fields.items():
            if name not in self._store:
                self._store[name] = torch.zeros(
                    (self.capacity, *value.shape[1:]), dtype=value.dtype, device=value.device
                )
            at = (self._pushed + torch.arange(count, device=value.device)) % self.capacity
            self._store[name][at[-self.capacity :]] = value.detach()[-self.capacity :]
        self._pushed += count

    def __getitem__(self, name: str) -> Tensor:
        """The filled part of a field, (len(self), ...); a view that the next push may change."""
        return self._store[name][: len(self)]

    def state_dict(self) -> dict[str, Tensor]:
        """The pool as tensors."""
        return {
            "pushed": torch.tensor(self._pushed),
            **{f"store.{name}": value.clone() for name, value in self._store.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self._pushed = int(state["pushed"])
        self._store = {
            name.removeprefix("store."): value.clone()
            for name, value in state.items()
            if name.startswith("store.")
        }


class Bank(Pool):
    """A pool of ``embedding`` and ``row``, asked for nearest neighbours as RoCLIP and SAFECLIP do (lightly's memory bank).

    It begins as random unit vectors, whose row is -1, so that it has answers from the first step on.
    """

    def __init__(self, capacity: int, rng: torch.Generator) -> None:
        super().__init__(capacity)
        self._rng = rng

    def nearest(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (b, d) and row (b,) of the entry with the largest cosine to each of the unit vectors ``query`` (b, d)."""
        if not len(self):
            self._fill_with_noise(query.detach())
        found = (query.detach() @ self["embedding"].T).argmax(dim=1)
        return self["embedding"][found], self["row"][found]

    def _fill_with_noise(self, like: Tensor) -> None:
        noise = F.normalize(torch.randn(self.capacity, like.shape[1], generator=self._rng), dim=1)
        self.push(embedding=noise.to(like), row=torch.full((self.capacity,), -1, device=like.device))
