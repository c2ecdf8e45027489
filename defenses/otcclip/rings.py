"""A ring of references: row i of a batch meets rows i + shift, which are certainly not its own.

Every row has as many references as there are shifts, and nobody meets all others: the cost grows with the batch, not with its
square. A shift of 0 is the row's own pair. Where ``at`` is given, the first side holds those k rows of the batch only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from poisonbench.defenses.otcclip.coupling import Gradient, similarity
from poisonbench.defenses.otcclip.transport import Backend
from poisonbench.towers import Features

Rows = Tensor | slice
ALL = slice(None)


def met(captions: Features, shifts: Sequence[int], at: Rows = ALL) -> Iterator[Features]:
    """For every shift the captions that the rows meet, without columns that no caption of the batch uses."""
    used = int(captions.mask.any(dim=0).nonzero().max()) + 1
    tokens, mask = captions.tokens[:, :used], captions.mask[:, :used]
    for shift in shifts:
        yield Features(captions.embedding.roll(-shift, 0), tokens.roll(-shift, 0), mask.roll(-shift, 0))[at]


def cosine_ring(first: Tensor, second: Tensor, shifts: Sequence[int], at: Rows = ALL) -> Tensor:
    """Cosines of row i of ``first`` with row i + shift of ``second``, for every shift: (b, len(shifts))."""
    return torch.stack([(first * second.roll(-shift, 0)[at]).sum(dim=1) for shift in shifts], dim=1)


def transport_ring(
    first: Features,
    second: Features,
    shifts: Sequence[int],
    eps: float,
    iterations: int,
    backend: Backend,
    gradient: Gradient = "detached",
    at: Rows = ALL,
) -> Tensor:
    """Transport similarity of row i of ``first`` with row i + shift of ``second``, for every shift: (b, len(shifts)).

    One shift is a micro-batch: no more than b problems are under way at once. ``gradient`` says what is returned and
    differentiated, see ``coupling.similarity``.
    """
    columns = [
        similarity(first.tokens, other.tokens, first.mask, other.mask, eps, iterations, backend, gradient)
        for other in met(second, shifts, at)
    ]
    return torch.stack(columns, dim=1)
