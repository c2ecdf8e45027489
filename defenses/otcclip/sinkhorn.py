"""Entropic optimal transport of many small problems at once (Cuturi, 2013).

Sinkhorn's scaling iterations, stabilised as in Schmitzer (2019): scalings are absorbed into potentials before they leave
the range of fp32, and a small entropy is reached by halving a larger one. The first potentials come from reducing rows and
columns by their minima, so that no row or column of the first kernel vanishes whatever the entropy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GENTLE = 0.05
"""From this entropy on the whole kernel is far from fp32's underflow: costs differ by at most 2, and exp(-2 / 0.05) = 4e-18."""
STAGE = 10
"""Iterations at each of the larger entropies that lead to a small one."""
ABSORB = 40
"""Iterations between two absorptions."""
CHECK = 4
"""Iterations between two looks at the marginals."""
FAR = 4.0
"""Stands for the cost of padding: above every real cost, and finite, so that no mass times it is zero."""
TINY = 1e-30


@dataclass
class Problems:
    """Transport problems under way; a plan is ``u * kernel * v`` with ``kernel = exp((f + g - cost) / eps)``.

    Attributes:
        cost: (q, m, n) in [0, 2], ``FAR`` on padding.
        hidden: (q, m, n) bool, where there is padding; None where there is none at all.
        a: (q, m) masses of the rows, zero on padding.
        b: (q, n) masses of the columns.
        f: (q, m) potentials.
        g: (q, n) potentials.
        kernel: (q, m, n).
        u: (q, m) scalings since the last absorption.
        v: (q, n)
    """

    cost: Tensor
    hidden: Tensor | None
    a: Tensor
    b: Tensor
    f: Tensor
    g: Tensor
    kernel: Tensor
    u: Tensor
    v: Tensor

    @classmethod
    def of(cls, cost: Tensor, a: Tensor, b: Tensor) -> Problems:
        """Problems with reduced rows and columns, not yet at any entropy."""
        hidden = None
        if not (a.all() and b.all()):
            hidden = (a == 0).unsqueeze(-1) | (b == 0).unsqueeze(-2)
            cost = cost.masked_fill(hidden, FAR)
        f, g = _reduced(cost, hidden)
        return cls(cost, hidden, a, b, f, g, cost, torch.ones_like(a), torch.ones_like(b))

    def at_rows(self, rows: Tensor) -> Problems:
        """Some of the problems, by their numbers: int64."""
        kept = {
            name: None if part is None else part.index_select(0, rows) for name, part in vars(self).items()
        }
        return Problems(**kept)  # type: ignore[arg-type]

    def enter(self, eps: float) -> None:
        """Set the kernel to the potentials at an entropy, with scalings of one."""
        exponent = (self.f.unsqueeze(-1) - self.cost).add_(self.g.unsqueeze(-2)).div_(eps)
        self.kernel = _filled(exponent.exp_(), self.hidden, 0.0)
        self.u, self.v = torch.ones_like(self.a), torch.ones_like(self.b)

    def absorb(self, eps: float) -> None:
        """Move the scalings into the potentials."""
        self.f = self.f + eps * self.u.clamp_min(TINY).log()
        self.g = self.g + eps * self.v.clamp_min(TINY).log()

    def update(self) -> Tensor:
        """One iteration; returns by how much the rows of the plan before it missed their masses (L1): (q,)."""
        rows = (self.kernel @ self.v.unsqueeze(-1)).squeeze(-1)
        missed = (self.u * rows - self.a).abs().sum(dim=-1)
        self.u = self.a / rows.clamp_min(TINY)
        self.v = self.b / (self.kernel * self.u.unsqueeze(-1)).sum(dim=-2).clamp_min(TINY)
        return missed

    def plan(self) -> Tensor:
        """The plans; their columns carry their masses exactly: (q, m, n)."""
        return self.u.unsqueeze(-1) * self.kernel * self.v.unsqueeze(-2)

    def rounded_cost(self) -> Tensor:
        """What the plans cost once rounded to their marginals: (q,)."""
        return (rounded(self.plan(), self.a, self.b) * self.cost).sum(dim=(-1, -2))

    def reduced_bound(self) -> Tensor:
        """A cost that no plan undercuts, before any iteration: (q,)."""
        return (self.a * self.f).sum(dim=-1) + (self.b * self.g).sum(dim=-1)

    def dual_bound(self, eps: float) -> Tensor:
        """A cost that no plan undercuts, from the columns' potentials and the rows' best answer to them: (q,)."""
        g = torch.where(self.b > 0, self.g + eps * self.v.clamp_min(TINY).log(), 0)
        f = _filled(self.cost - g.unsqueeze(-2), self.hidden, FAR).amin(dim=-1)
        return (self.a * f).sum(dim=-1) + (self.b * g).sum(dim=-1)


def _filled(matrices: Tensor, hidden: Tensor | None, value: float) -> Tensor:
    return matrices if hidden is None else matrices.masked_fill_(hidden, value)


def _reduced(cost: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Dual potentials (q, m), (q, n): the rows' minima, then the columns' minima of what is left."""
    f = cost.amin(dim=-1)
    return f, _filled(cost - f.unsqueeze(-1), hidden, FAR).amin(dim=-2)


def rounded(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The plan moved onto its marginals (Altschuler, Weed and Rigollet, 2017, algorithm 2): (q, m, n)."""
    plan = plan * (a / plan.sum(dim=-1).clamp_min(TINY)).clamp(max=1).unsqueeze(-1)
    plan = plan * (b / plan.sum(dim=-2).clamp_min(TINY)).clamp(max=1).unsqueeze(-2)
    short_a, short_b = (a - plan.sum(dim=-1)).clamp(min=0), (b - plan.sum(dim=-2)).clamp(min=0)
    missing = torch.maximum(short_a.sum(dim=-1), short_b.sum(dim=-1)).clamp_min(TINY)
    return plan + short_a.unsqueeze(-1) * short_b.unsqueeze(-2) / missing[..., None, None]


def plan(cost: Tensor, a: Tensor, b: Tensor, eps: float, iterations: int) -> Tensor:
    """Plans after a fixed number of iterations.

    Args:
        cost: (q, m, n), in [0, 2]; fp32 or float64.
        a: (q, m) masses of the rows, zero on padding.
        b: (q, n) masses of the columns.
        eps: weight of the entropy.
        iterations: at that entropy.

    Returns:
        (q, m, n): columns sum to b, rows to a up to the last iteration's error.
    """
    problems = _warmed(Problems.of(cost, a, b), eps)
    for step in range(1, iterations + 1):
        _keep_in_range(problems, eps, step)
        problems.update()
    return problems.plan()


def costs(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    eps: float,
    tolerance: float,
    iterations: int,
    ceiling: Tensor | None = None,
) -> Tensor:
    """Transport costs of converged plans, rounded to their marginals and so never below the least possible cost.

    Converged problems leave when half of those that are left can; until then they only become more exact.

    Args:
        cost: (q, m, n), in [0, 2].
        a: (q, m) masses of the rows, zero on padding.
        b: (q, n) masses of the columns.
        eps: weight of the entropy.
        tolerance: L1 error of the marginals at which a problem has converged.
        iterations: at most, at that entropy; what has not converged by then is rounded as it is.
        ceiling: (q,) problems that certainly cost more are given up.

    Returns:
        (q,), infinite for problems that were given up.
    """
    found = torch.full_like(cost[:, 0, 0], torch.inf)
    problems, at = Problems.of(cost, a, b), torch.arange(len(cost), device=cost.device)
    if ceiling is not None:
        hopeful = (problems.reduced_bound() <= ceiling).nonzero().squeeze(1)
        problems, at = problems.at_rows(hopeful), hopeful
    problems, doubt = _warmed(problems, eps), CHECK
    for step in range(1, iterations + 1):
        if not len(at):
            return found
        _keep_in_range(problems, eps, step)
        missed = problems.update()
        if step % CHECK:
            continue
        done = missed <= tolerance
        settled = done
        if ceiling is not None and step == doubt:
            settled, doubt = done | (problems.dual_bound(eps) > ceiling[at]), 4 * doubt
        if 2 * settled.sum() >= len(settled):
            closed, left = done.nonzero().squeeze(1), (~settled).nonzero().squeeze(1)
            found[at[closed]] = problems.at_rows(closed).rounded_cost()
            problems, at = problems.at_rows(left), at[left]
    found[at] = problems.rounded_cost()
    return found


def stages(eps: float) -> int:
    """How often an entropy must be doubled until it is gentle."""
    return max(0, math.ceil(math.log2(GENTLE / eps)))


def _warmed(problems: Problems, eps: float) -> Problems:
    """Problems at an entropy that was reached by halving larger ones."""
    for doublings in range(stages(eps), 0, -1):
        larger = eps * 2**doublings
        problems.enter(larger)
        for _ in range(STAGE):
            problems.update()
        problems.absorb(larger)
    problems.enter(eps)
    return problems


def _keep_in_range(problems: Problems, eps: float, step: int) -> None:
    if step % ABSORB == 0:
        problems.absorb(eps)
        problems.enter(eps)
