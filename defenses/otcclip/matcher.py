"""Optimal-transport matching of images and captions, exact over a whole pool.

An image is a set of visual tokens, a caption a set of text tokens, all of them unit vectors; moving mass from one token to
another costs 1 - cos. ``distances`` gives the entropic transport cost of every pair, ``match`` the best captions of every image
without solving most pairs: lower bounds rule the others out (bounds.py, search.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from poisonbench.defenses.otcclip.precision import outside_autocast
from poisonbench.defenses.otcclip.search import SLACK, search
from poisonbench.defenses.otcclip.solvers import Solver, solver_for
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.defenses.otcclip.transport import Transport

__all__ = ["Matches", "Transport", "distances", "match"]


@dataclass(frozen=True)
class Matches:
    """The k best captions of b images, best first.

    Attributes:
        index: int64 (b, k), into the pool.
        cost: (b, k) transport costs.
        score: (b, k) what was maximised: -cost, or the mixture with the prior.
        solved: share of all pairs whose transport problem was solved, or given up half-way.
        missed: with a shortlist, the share of audited images for which the pool has a better caption than the list; else None.
    """

    index: Tensor
    cost: Tensor
    score: Tensor
    solved: float
    missed: float | None = None


@torch.no_grad()
@outside_autocast
def distances(visual: TokenSets | Tensor, text: TokenSets | Tensor, how: Transport | None = None) -> Tensor:
    """Entropic transport costs of all pairs.

    Args:
        visual: b sets, or a tensor (b, m, d) of unit vectors without padding.
        text: p sets, or a tensor (p, n, d).
        how: entropy, accuracy, backend and memory.

    Returns:
        fp32 (b, p), in [0, 2] up to rounding.

    Raises:
        ValueError: if there is no image or no caption.
    """
    solver, order = _solver(visual, text, how)
    found = torch.empty(len(solver.images), len(order), device=order.device)
    every = torch.arange(len(solver.images), device=order.device)
    width = max(1, solver.block // len(every))
    for captions in torch.split(torch.arange(len(order), device=order.device), width):
        costs = solver.costs(every.repeat(len(captions)), captions.repeat_interleave(len(every)))
        found[:, order[captions]] = costs.view(len(captions), -1).T
    return found


@torch.no_grad()
@outside_autocast
def match(
    visual: TokenSets | Tensor,
    text: TokenSets | Tensor,
    k: int = 1,
    prior: Tensor | None = None,
    *,
    beta: float = 0.5,
    scales: tuple[float, float] = (1.0, 1.0),
    top_k: int | None = None,
    audit: int = 16,
    how: Transport | None = None,
) -> Matches:
    """The captions of least transport cost, or of the best mixed score, exact over the whole pool.

    The mixed score is ``beta * prior / scales[0] + (1 - beta) * (1 - cost) / scales[1]``. The scales bring the two terms
    together; they are given (fixed, or kept from earlier batches by ``scales.Running``), so that bounds can rule pairs out.

    Args:
        visual: b sets, or a tensor (b, m, d) of unit vectors without padding.
        text: the pool, p sets or a tensor (p, n, d).
        k: captions per image.
        prior: (b, p) similarities that count beside the transport cost, usually cosines of global embeddings.
        beta: weight of the prior.
        scales: spread of the prior and of the transport similarity.
        top_k: consider only so many captions per image, those of the largest prior: faster, and no longer exact.
        audit: with ``top_k``, how many images are also matched exactly, to see how often the shortlist misses.
        how: entropy, accuracy, backend and memory.

    Raises:
        ValueError: if there is no image, the pool is smaller than ``k``, the prior has another shape, ``beta`` or the scales
            would turn a bound round, or a shortlist is wanted without a prior.
        FloatingPointError: if an image has nothing to be matched with, since tokens or the prior are not finite; a prior of
            -inf only forbids its pair.
    """
    solver, order = _solver(visual, text, how)
    _check(k, top_k, prior, beta, scales, (len(solver.images), len(order)))
    weight = 1.0 if prior is None else (1 - beta) / scales[1]
    prior = None if prior is None else prior.detach().float()[:, order]
    offset = None if prior is None else -(beta / scales[0]) * prior
    constant = 0.0 if prior is None else weight
    allowed = None if top_k is None or prior is None else _nearest(prior, top_k)
    found = search(solver, k, weight, offset, allowed)
    best = found.objective.topk(k, dim=1, largest=False)
    _check_found(best.values, prior)
    missed = None
    if allowed is not None and offset is not None and audit > 0:
        some = torch.arange(0, len(offset), -(-len(offset) // audit), device=order.device)
        few = solver_for(solver.images.at_rows(some), solver.captions, solver.how)
        least = search(few, 1, weight, offset[some]).objective.amin(dim=1)
        missed = float((best.values[some, 0] > least + SLACK).float().mean())
    return Matches(
        order[best.indices],
        found.cost.gather(1, best.indices),
        constant - best.values,
        found.solved / found.cost.numel(),
        missed,
    )


def _check(
    k: int,
    top_k: int | None,
    prior: Tensor | None,
    beta: float,
    scales: tuple[float, float],
    shape: tuple[int, int],
) -> None:
    if not 1 <= k <= shape[1]:
        raise ValueError(f"k = {k} captions cannot be taken from a pool of {shape[1]}")
    if prior is not None and prior.shape != shape:
        raise ValueError(f"the prior has the shape {tuple(prior.shape)}, not {shape}, images by captions")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta = {beta} is not between 0 and 1")
    if not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales = {scales} are not both positive and finite")
    if top_k is not None and prior is None:
        raise ValueError("top_k takes the captions of the largest prior: give a prior")
    if top_k is not None and top_k < k:
        raise ValueError(f"top_k = {top_k} captions are fewer than k = {k}")


def _check_found(objective: Tensor, prior: Tensor | None) -> None:
    """Refuse best objectives (b, k) that are no numbers, but where a prior (b, p) forbids pairs."""
    lost = ~objective.isfinite().all(dim=1)
    if prior is not None:
        lost &= ~prior.isneginf().any(dim=1)
    if lost.any():
        raise FloatingPointError("tokens or priors are not finite, so that an image has no best caption")


def _nearest(prior: Tensor, top_k: int) -> Tensor:
    """Which captions have the largest prior: bool (b, p)."""
    first = prior.topk(min(top_k, prior.shape[1]), dim=1).indices
    return torch.zeros_like(prior, dtype=torch.bool).scatter_(1, first, True)


def _solver(
    visual: TokenSets | Tensor, text: TokenSets | Tensor, how: Transport | None
) -> tuple[Solver, Tensor]:
    """A solver over the captions sorted by length, longest first, and their order: int64 (p,)."""
    images, captions = (
        sets if isinstance(sets, TokenSets) else TokenSets.of(sets) for sets in (visual, text)
    )
    if not len(images) or not len(captions):
        raise ValueError(f"{len(images)} images cannot be matched with {len(captions)} captions")
    order = captions.length.argsort(descending=True, stable=True)
    return solver_for(images, captions.at_rows(order), how or Transport()), order
