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
FEW = 3
"""Problems that are settled stay with the others while they are fewer than one in so many."""
FAR = 4.0
"""Stands for the cost of padding: above every real cost, and finite, so that no mass times it is zero."""
TINY = 1e-30


@dataclass
class Problems:
    """Transport problems under way; a plan is ``u * kernel * v`` with ``kernel = exp((f + g - cost) / eps)``.

    The problems stand last, side by side in memory: a processor's vectors then hold a place of many problems, where a
    row of one problem would leave them half empty. A place of padding has mass 0, so that its scaling is 0 as well.

    Attributes:
        cost: (m, n, q) in [0, 2], ``FAR`` on padding.
        a: (m, q) masses of the rows, zero on padding.
        b: (n, q) masses of the columns.
        f: (m, q) potentials; at first zero on padding, and with ``f + g`` nowhere above the cost.
        g: (n, q) potentials.
        kernel: (m, n, q).
        u: (m, q) scalings since the last absorption.
        v: (n, q) likewise.
        room: (m, n, q) for intermediate results: memory fetched anew for each can cost as much as the iterations.
    """

    cost: Tensor
    a: Tensor
    b: Tensor
    f: Tensor
    g: Tensor
    kernel: Tensor
    u: Tensor
    v: Tensor
    room: Tensor

    @classmethod
    def of(cls, cost: Tensor, a: Tensor, b: Tensor) -> Problems:
        """Problems (q, m, n) with masses (q, m) and (q, n), their rows and columns reduced, not yet at any entropy."""
        cost, a, b = cost.permute(1, 2, 0).contiguous(), a.T.contiguous(), b.T.contiguous()
        if not (a.all() and b.all()):
            cost = cost.masked_fill((a == 0).unsqueeze(1) | (b == 0), FAR)
        kernel, room = torch.empty_like(cost), torch.empty_like(cost)
        f = torch.where(a > 0, cost.amin(dim=1), 0)
        g = torch.where(b > 0, torch.sub(cost, f.unsqueeze(1), out=room).amin(dim=0), 0)
        return cls(cost, a, b, f, g, kernel, torch.ones_like(a), torch.ones_like(b), room)

    def at_rows(self, rows: Tensor) -> Problems:
        """Some of the problems, by their numbers: int64. They share this one's room."""
        parts = {name: part.index_select(-1, rows) for name, part in vars(self).items() if name != "room"}
        return Problems(**parts, room=self.room.view(-1)[: parts["cost"].numel()].view_as(parts["cost"]))

    def enter(self, eps: float) -> None:
        """Set the kernel to the potentials at an entropy, with scalings of one."""
        torch.sub(self.f.unsqueeze(1), self.cost, out=self.kernel).add_(self.g).div_(eps).exp_()
        self.u, self.v = torch.ones_like(self.a), torch.ones_like(self.b)

    def absorb(self, eps: float) -> None:
        """Move the scalings into the potentials."""
        self.f = self.f + eps * self.u.clamp_min(TINY).log()
        self.g = self.g + eps * self.v.clamp_min(TINY).log()

    def update(self) -> Tensor:
        """One iteration; returns by how much the rows of the plan before it missed their masses (L1): (q,)."""
        rows = torch.mul(self.kernel, self.v, out=self.room).sum(dim=1)
        missed = (self.u * rows - self.a).abs_().sum(dim=0)
        self.u = self.a / rows.clamp_min_(TINY)
        columns = torch.mul(self.kernel, self.u.unsqueeze(1), out=self.room).sum(dim=0)
        self.v = self.b / columns.clamp_min_(TINY)
        return missed

    def plan(self) -> Tensor:
        """The plans; their columns carry their masses exactly: (q, m, n)."""
        return self._plan().permute(2, 0, 1).contiguous()

    def rounded_cost(self) -> Tensor:
        """What the plans cost once rounded to their marginals: (q,)."""
        return _round(self._plan(), self.a, self.b).mul_(self.cost).sum(dim=(0, 1))

    def reduced_bound(self) -> Tensor:
        """A cost that no plan undercuts, before any iteration: (q,)."""
        return (self.a * self.f).sum(dim=0) + (self.b * self.g).sum(dim=0)

    def dual_bound(self, eps: float) -> Tensor:
        """A cost that no plan undercuts, from the columns' potentials and the rows' best answer to them: (q,)."""
        g = torch.where(self.b > 0, self.g + eps * self.v.clamp_min(TINY).log(), 0)
        f = torch.sub(self.cost, g, out=self.room).amin(dim=1)
        return (self.a * f).sum(dim=0) + (self.b * g).sum(dim=0)

    def _plan(self) -> Tensor:
        return torch.mul(self.kernel, self.v, out=self.room).mul_(self.u.unsqueeze(1))


def rounded(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Plans (q, m, n) moved onto their marginals (q, m), (q, n) (Altschuler, Weed and Rigollet, 2017, algorithm 2)."""
    return _round(plan.permute(1, 2, 0).clone(), a.T, b.T).permute(2, 0, 1)


def _round(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The same in place, with the problems last."""
    plan *= (a / plan.sum(dim=1).clamp_min(TINY)).clamp_(max=1).unsqueeze(1)
    plan *= (b / plan.sum(dim=0).clamp_min(TINY)).clamp_(max=1)
    short_a, short_b = (a - plan.sum(dim=1)).clamp_(min=0), (b - plan.sum(dim=0)).clamp_(min=0)
    missing = torch.maximum(short_a.sum(dim=0), short_b.sum(dim=0)).clamp_min(TINY)
    return plan.addcmul_(short_a.unsqueeze(1), short_b / missing)


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

    Converged problems leave when a third of those that are left can; until then they only become more exact.

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
    if ceiling is not None and _many(hopeless := problems.reduced_bound() > ceiling):
        problems, at = _without(problems, at, hopeless)
    problems, doubt = _warmed(problems, eps), CHECK
    for step in range(1, iterations + 1):
        if not len(at):
            return found
        _keep_in_range(problems, eps, step)
        missed = problems.update()
        if step % CHECK:
            continue
        done = settled = missed <= tolerance
        if ceiling is not None and step == doubt:
            settled, doubt = done | (problems.dual_bound(eps) > ceiling[at]), 4 * doubt
        if _many(settled):
            closed = done.nonzero().squeeze(1)
            found[at[closed]] = problems.at_rows(closed).rounded_cost()
            problems, at = _without(problems, at, settled)
    found[at] = problems.rounded_cost()
    return found


def _many(settled: Tensor) -> bool:
    """Whether to go on without the settled problems is worth copying the others."""
    return bool(FEW * settled.sum() >= len(settled))


def _without(problems: Problems, at: Tensor, settled: Tensor) -> tuple[Problems, Tensor]:
    """The problems that are left, and their numbers."""
    left = (~settled).nonzero().squeeze(1)
    return problems.at_rows(left), at[left]


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
