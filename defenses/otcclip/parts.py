"""The state of an object that is made of parts, as one flat mapping of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Part(Protocol):
    """What has tensors to keep."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        ...


def kept(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """The tensors of all parts, each under ``part.name``."""
    return {f"{part}.{name}": value for part, it in parts.items() for name, value in it.state_dict().items()}


def restore(parts: Mapping[str, Part], state: Mapping[str, Tensor]) -> None:
    """Give every part back what ``kept`` took from it."""
    for part, it in parts.items():
        start = f"{part}."
        it.load_state_dict(
            {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        )
