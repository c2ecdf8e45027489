"""Optimal-transport matching of images and captions, exact over a whole pool.

An image is a set of visual tokens, a caption a set of text tokens, all of them unit vectors; moving mass from one token to
another costs 1 - cos. ``distances`` gives the entropic transport cost of every pair, ``match`` the best captions of every image
without solving most pairs: lower bounds rule the others out (bounds.py, search.py). ``similarity`` is the differentiable form
for aligned pairs, used in the losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from poisonbench.defenses.otcclip import sinkhorn
from poisonbench.defenses.otcclip.search import SLACK, search
from poisonbench.defenses.otcclip.solvers import Solver, pot_plan, solver_for
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.defenses.otcclip.transport import Backend, Transport

__all__ = ["Backend", "Gradient", "Matches", "Transport", "distances", "match", "plan", "similarity"]

Gradient = Literal["detached", "envelope"]
First = TypeVar("First", bound=TokenSets | Tensor)
P = ParamSpec("P")
R = TypeVar("R")


def outside_autocast(work: Callable[Concatenate[First, P], R]) -> Callable[Concatenate[First, P], R]:
    """The same function of tokens or costs, whose products keep fp32 under any autocast of the caller."""

    @wraps(work)
    def exact(first: First, *args: P.args, **kwargs: P.kwargs) -> R:
        tokens = first.tokens if isinstance(first, TokenSets) else first
        with torch.autocast(tokens.device.type, enabled=False):
            return work(first, *args, **kwargs)

    return exact


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


@outside_autocast
def plan(
    cost: Tensor, visual: Tensor, text: Tensor, eps: float, iterations: int, backend: Backend = "torch"
) -> Tensor:
    """The entropic transport plans of a batch of problems, by a fixed number of iterations; no gradient flows through them.

    Args:
        cost: (..., m, n), in [0, 2].
        visual: (..., m) bool, the real rows.
        text: (..., n) bool, the real columns.
        eps: weight of the entropy.
        iterations: Sinkhorn iterations.
        backend: ``pot`` for POT's solver; all others are ours in PyTorch.

    Returns:
        (..., m, n): columns sum to 1/n over real tokens, rows to 1/m up to the last iteration's error; fp32, or the type of a
        float64 cost.
    """
    m, n = cost.shape[-2:]
    flat = cost.detach().reshape(-1, m, n)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    a, b = (_uniform(mask, flat.dtype) for mask in (visual.reshape(-1, m), text.reshape(-1, n)))
    found = (
        pot_plan(flat, a, b, eps, iterations, 1e-9)
        if backend == "pot"
        else sinkhorn.plan(flat, a, b, eps, iterations)
    )
    return found.reshape(cost.shape)


@outside_autocast
def similarity(
    visual: Tensor,
    text: Tensor,
    visual_mask: Tensor,
    text_mask: Tensor,
    eps: float,
    iterations: int,
    backend: Backend = "torch",
    gradient: Gradient = "detached",
) -> Tensor:
    """1 - transport cost of aligned problems, differentiable in the tokens with the plan held constant.

    ``detached`` gives the transport cost <P, C> and its partial derivative in C; that P moves with C is left out (PLOT's
    stop-gradient). ``envelope`` gives the entropic value <P, C> + eps KL(P | a b), whose total derivative *is* P at the
    optimum (envelope theorem): same gradient of a single pair, but the gradient of the number returned. Unrolling the iterations
    instead would give the total derivative of <P, C>, for the memory of every iteration.

    Args:
        visual: (..., m, d) unit vectors.
        text: (..., n, d) unit vectors.
        visual_mask: (..., m) bool.
        text_mask: (..., n) bool.
        eps: weight of the entropy.
        iterations: Sinkhorn iterations.
        backend: who computes the plan.
        gradient: what is returned, see above.

    Returns:
        (...), at most 1; fp32 for bf16 tokens.
    """
    visual, text = (side if side.dtype == torch.float64 else side.float() for side in (visual, text))
    cost = 1 - visual @ text.transpose(-1, -2)
    shape = cost.shape
    rows, columns = visual_mask.expand(shape[:-1]), text_mask.expand(*shape[:-2], shape[-1])
    coupling = plan(cost, rows, columns, eps, iterations, backend).to(cost.dtype)
    value = 1 - (coupling * cost).sum(dim=(-1, -2))
    if gradient == "detached":
        return value
    a, b = (_uniform(mask, cost.dtype) for mask in (rows, columns))
    independent = (a.unsqueeze(-1) * b.unsqueeze(-2)).clamp_min(sinkhorn.TINY)
    # xlogy is zero where the plan is
    shared = torch.xlogy(coupling, coupling / independent).sum(dim=(-1, -2))
    return value - eps * shared


def _uniform(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return mask.to(dtype) / mask.sum(dim=-1, keepdim=True)
