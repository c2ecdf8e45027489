"""Transport plans of aligned problems, and the differentiable similarity that the losses are made of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from poisonbench.defenses.otcclip import sinkhorn
from poisonbench.defenses.otcclip.precision import outside_autocast
from poisonbench.defenses.otcclip.solvers import pot_plan
from poisonbench.defenses.otcclip.transport import Backend

Gradient = Literal["detached", "envelope"]


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
