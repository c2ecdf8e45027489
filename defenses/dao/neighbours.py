"""Exact nearest neighbours, in chunks that respect a memory budget, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BUDGET = 256 * 2**20
"""Bytes that a chunk of the distance matrix may take."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest other points of each of n points, nearest first.

    Attributes:
        distance: float64, (n, k), Euclidean.
        index: int64, (n, k).
    """

    distance: Tensor
    index: Tensor


def nearest(points: Tensor, k: int, budget: int = BUDGET) -> Neighbours:
    """The ``k`` nearest other points of every point, by brute force: O(n^2 d) time, O(budget + n k) memory.

    Distances are sums of squared differences, not |x|^2 + |y|^2 - 2xy, which cancels for the near copies that matter here.

    Args:
        points: (n, d).
        k: fewer than n.
        budget: bytes for the distances that are held at a time.

    Raises:
        ValueError: unless 1 <= k < n.
    """
    n = len(points)
    if not 1 <= k < n:
        raise ValueError(f"{n} points do not have {k} neighbours each")
    step = max(1, budget // (points.element_size() * n))
    found = [_nearest_of(points, at, min(at + step, n), k) for at in range(0, n, step)]
    distances, indices = zip(*found, strict=True)
    return Neighbours(torch.cat(distances).double(), torch.cat(indices))


def _nearest_of(points: Tensor, start: int, stop: int, k: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(start, stop, device=points.device)
    distance = torch.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")
    distance[rows - start, rows] = torch.inf  # nobody is its own neighbour
    best = distance.topk(k, dim=1, largest=False)
    return best.values, best.indices
