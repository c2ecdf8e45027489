"""Entropic optimal transport between the visual tokens of images and the text tokens of captions.

Cost 1 - cos between unit tokens, uniform marginals over real tokens, entropic plan by Sinkhorn's iterations (Cuturi, 2013).
Padding is masked out of the marginals, never given a zero cost.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Backend = Literal["torch", "pot"]
SCALING_FLOOR = 0.04
"""Smallest entropy for which exp(-2 / eps) is far from fp32's underflow; below it the iterations run on logarithms."""


def plan(
    cost: Tensor, visual: Tensor, text: Tensor, eps: float, iterations: int, backend: Backend = "torch"
) -> Tensor:
    """The entropic transport plans of a batch of problems; no gradient flows through them.

    Args:
        cost: (..., m, n), in [0, 2].
        visual: (..., m) bool, the real rows.
        text: (..., n) bool, the real columns.
        eps: weight of the entropy.
        iterations: Sinkhorn iterations.
        backend: ``torch`` is ours, ``pot`` is POT's ``ot.batch`` (the reference).

    Returns:
        (..., m, n): rows sum to 1/m and columns to 1/n over real tokens, up to the last iteration's error in the rows.
    """
    cost = cost.detach().float()
    a, b = (mask.float() / mask.sum(dim=-1, keepdim=True) for mask in (visual, text))
    if backend == "pot":
        return _pot(cost, a, b, eps, iterations)
    return (
        _scaled(cost, a, b, eps, iterations)
        if eps >= SCALING_FLOOR
        else _logarithmic(cost, a, b, eps, iterations)
    )


def _scaled(cost: Tensor, a: Tensor, b: Tensor, eps: float, iterations: int) -> Tensor:
    kernel = torch.exp(-cost / eps) * (a > 0).unsqueeze(-1) * (b > 0).unsqueeze(-2)
    u, v = torch.ones_like(a), torch.ones_like(b)
    for _ in range(iterations):
        u = a / (kernel @ v.unsqueeze(-1)).squeeze(-1).clamp_min(1e-30)
        v = b / (u.unsqueeze(-2) @ kernel).squeeze(-2).clamp_min(1e-30)
    return u.unsqueeze(-1) * kernel * v.unsqueeze(-2)


def _logarithmic(cost: Tensor, a: Tensor, b: Tensor, eps: float, iterations: int) -> Tensor:
    log_a, log_b, kernel = a.log(), b.log(), -cost / eps
    f, g = torch.zeros_like(a), torch.where(b > 0, 0.0, -torch.inf)
    for _ in range(iterations):
        f = log_a - torch.logsumexp(kernel + g.unsqueeze(-2), dim=-1)
        g = log_b - torch.logsumexp(kernel + f.unsqueeze(-1), dim=-2)
    return (f.unsqueeze(-1) + kernel + g.unsqueeze(-2)).exp()


def _pot(cost: Tensor, a: Tensor, b: Tensor, eps: float, iterations: int) -> Tensor:
    from ot.batch import solve_batch

    m, n = cost.shape[-2:]
    # POT has no masks: padding gets a vanishing mass instead
    a, b = ((mass + 1e-12) / (mass + 1e-12).sum(dim=-1, keepdim=True) for mass in (a, b))
    solved = solve_batch(
        cost.reshape(-1, m, n),
        reg=eps,
        a=a.reshape(-1, m),
        b=b.reshape(-1, n),
        max_iter=iterations,
        tol=1e-9,
        method="log_sinkhorn",
        grad="detach",
    )
    return solved.plan.reshape(cost.shape)


def similarity(
    visual: Tensor,
    text: Tensor,
    visual_mask: Tensor,
    text_mask: Tensor,
    eps: float,
    iterations: int,
    backend: Backend = "torch",
) -> Tensor:
    """1 - transport cost of aligned problems; the plan is constant, the cost carries the gradient (PLOT's stop-gradient).

    Args:
        visual: (..., m, d) unit vectors.
        text: (..., n, d) unit vectors.
        visual_mask: (..., m) bool.
        text_mask: (..., n) bool.
        eps: weight of the entropy.
        iterations: Sinkhorn iterations.
        backend: who computes the plan.

    Returns:
        (...), in [-1, 1].
    """
    cost = 1 - visual @ text.transpose(-1, -2)
    shape = cost.shape
    coupling = plan(
        cost,
        visual_mask.expand(shape[:-1]),
        text_mask.expand(*shape[:-2], shape[-1]),
        eps,
        iterations,
        backend,
    )
    return 1 - (coupling * cost).sum(dim=(-1, -2))
