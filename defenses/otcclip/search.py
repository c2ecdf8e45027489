"""The best captions of every image, exactly, without solving every pair.

A pair whose bound is worse than the k-th best of what its image has been found so far cannot be among the best k. The pairs
with the best bounds are solved first, since they set the mark for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poisonbench.defenses.otcclip.solvers import Solver

ROUNDS = (4, 32)
"""Pairs per image that are solved before the mark is taken anew; a last round holds all that still may win."""
SLACK = 1e-5
"""Room for fp32 between a bound and a mark."""


@dataclass(frozen=True)
class Found:
    """What a search ends with.

    Attributes:
        objective: (b, p), lower is better; infinite for pairs that were never solved.
        cost: (b, p) transport costs, infinite likewise.
        solved: how many pairs were solved, or given up half-way.
    """

    objective: Tensor
    cost: Tensor
    solved: int


def search(
    solver: Solver, k: int, weight: float, offset: Tensor | None, allowed: Tensor | None = None
) -> Found:
    """Solve pairs until the k least objectives ``weight * cost + offset`` of every image are certain.

    Args:
        solver: bounds and costs of b images and p captions.
        k: captions wanted per image.
        weight: of the transport cost, at least 0.
        offset: (b, p) what else counts; zero if not given.
        allowed: bool (b, p), the pairs among which the best are wanted; all if not given.
    """
    least = solver.bounds() if allowed is None else torch.full_like(allowed, -torch.inf, dtype=torch.float32)
    base = torch.zeros_like(least) if offset is None else offset
    # -inf stands for "no bound" and must stay so at weight 0
    least = torch.where(least.isinf(), least, weight * least + base)
    if allowed is not None:
        least.masked_fill_(~allowed, torch.inf)
    cost, objective = torch.full_like(least, torch.inf), torch.full_like(least, torch.inf)
    solved = 0
    for per_image in (*(max(width, k) for width in ROUNDS), least.shape[1]):
        mark = objective.topk(k, dim=1, largest=False).values[:, -1:]
        image, caption = _candidates(least, mark + SLACK, per_image)
        solved += len(image)
        ceiling = (mark[image, 0] + SLACK - base[image, caption]) / weight if weight else None
        found = solver.costs(image, caption, ceiling)
        cost[image, caption] = found
        objective[image, caption] = torch.where(found.isinf(), found, weight * found + base[image, caption])
        least[image, caption] = torch.inf
    return Found(objective, cost, solved)


def _candidates(least: Tensor, mark: Tensor, per_image: int) -> tuple[Tensor, Tensor]:
    """Pairs that may beat the mark, at most ``per_image`` of every image, in the order of the captions."""
    if per_image >= least.shape[1]:
        caption, image = ((least <= mark) & (least < torch.inf)).T.nonzero(as_tuple=True)
        return image, caption
    first = least.topk(per_image, dim=1, largest=False)
    row, column = ((first.values <= mark) & (first.values < torch.inf)).nonzero(as_tuple=True)
    caption = first.indices[row, column]
    order = caption.argsort(stable=True)
    return row[order], caption[order]
