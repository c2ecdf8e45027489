"""Who bounds and solves: one interface, and a solver for each backend.

A solver is given the sets once and is then asked for lower bounds of all pairs and for the costs of some of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from poisonbench.defenses.otcclip import sinkhorn
from poisonbench.defenses.otcclip.bounds import fast_type, relaxed
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.defenses.otcclip.transport import Transport, resolved

CPU_BLOCK, CPU_GATHER = 1 << 25, 1 << 23
"""Bytes of a block of problems, and of the tokens gathered for part of it, on a CPU: small enough for its last-level cache."""
COPIES = 6
"""Matrices of a problem's size that Sinkhorn's iterations hold at once."""


class Solver(ABC):
    """Bounds and costs of pairs of b images and p captions.

    Attributes:
        images: b sets.
        captions: p sets, longest first.
        how: entropy, accuracy and memory.
    """

    def __init__(self, images: TokenSets, captions: TokenSets, how: Transport) -> None:
        self.images, self.captions, self.how = images, captions, how

    def bounds(self) -> Tensor:
        """What every pair costs at least: (b, p), fp32."""
        return relaxed(self.images, self.captions, fast_type(self.images.tokens.device), self.how.budget)

    @property
    def block(self) -> int:
        """Pairs that fit the byte budget at once."""
        m, n = self.images.tokens.shape[1], self.captions.tokens.shape[1]
        return self._fitting(CPU_BLOCK, COPIES * m * n)

    def _fitting(self, on_cpu: int, numbers: int) -> int:
        """How often so many fp32 numbers fit half the byte budget, or less where a cache is smaller."""
        budget = self.how.budget // 2
        budget = min(budget, on_cpu) if self.images.tokens.device.type == "cpu" else budget
        return max(1, budget // (4 * numbers))

    def costs(self, image: Tensor, caption: Tensor, ceiling: Tensor | None = None) -> Tensor:
        """Transport costs of pairs, in blocks that fit the byte budget.

        Args:
            image: int64 (q,).
            caption: int64 (q,), ascending: neighbours are then of about one length.
            ceiling: (q,) pairs that certainly cost more may be given up.

        Returns:
            fp32 (q,), infinite for pairs given up.
        """
        found = torch.empty(len(image), device=image.device)
        for start in range(0, len(image), self.block):
            part = slice(start, start + self.block)
            highest = None if ceiling is None else ceiling[part]
            found[part] = self._costs(image[part], caption[part], highest)
        return found

    @abstractmethod
    def _costs(self, image: Tensor, caption: Tensor, ceiling: Tensor | None) -> Tensor:
        """Transport costs of at most ``block`` pairs, at least one."""

    @cached_property
    def _upright(self) -> Tensor:
        """The images' tokens (b, d, m) as the second factor of many small products, which so take half the time."""
        return self.images.tokens.float().transpose(1, 2).contiguous()

    def _problems(self, image: Tensor, caption: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cost matrices (q, m, n) and marginals (q, m), (q, n), n being the tokens of the longest caption asked for."""
        n = int(self.captions.length[caption[0]])
        part = self._fitting(CPU_GATHER, (self.images.tokens.shape[1] + n) * self.images.tokens.shape[2])
        text = self.captions.tokens[:, :n]
        products = torch.empty(len(image), n, self.images.tokens.shape[1], device=image.device)
        for i, p, room in zip(*(torch.split(each, part) for each in (image, caption, products)), strict=True):
            torch.bmm(text.index_select(0, p).float(), self._upright.index_select(0, i), out=room)
        return (
            products.neg_().add_(1).transpose(1, 2),
            self.images.mass.index_select(0, image),
            self.captions.mass[:, :n].index_select(0, caption),
        )


class TorchSolver(Solver):
    """Sinkhorn in PyTorch, on a CPU or any GPU."""

    def _costs(self, image: Tensor, caption: Tensor, ceiling: Tensor | None) -> Tensor:
        how = self.how
        matrices = self._problems(image, caption)
        return sinkhorn.costs(*matrices, how.eps, how.tolerance, how.iterations, ceiling)


class PotSolver(Solver):
    """POT's batched solver over every pair: no bounds, nothing given up. The reference."""

    def bounds(self) -> Tensor:  # noqa: D102
        return torch.full(
            (len(self.images), len(self.captions)), -torch.inf, device=self.images.tokens.device
        )

    def _costs(self, image: Tensor, caption: Tensor, ceiling: Tensor | None) -> Tensor:
        cost, a, b = self._problems(image, caption)
        plan = pot_plan(cost, a, b, self.how.eps, self.how.iterations, self.how.tolerance)
        moved = sinkhorn.rounded(plan, a, b)
        return (moved * cost.where(moved > 0, 0)).sum(dim=(1, 2))


def pot_plan(cost: Tensor, a: Tensor, b: Tensor, eps: float, iterations: int, tolerance: float) -> Tensor:
    """Plans (q, m, n) by ``ot.batch``; POT has no masks, so padding is far away and has a vanishing mass.

    ``tolerance`` is of the marginals' L1 error; POT looks at the L2 error, which is at least a root of m smaller.
    """
    from ot.batch import solve_batch

    cost = cost.masked_fill((a == 0).unsqueeze(2) | (b == 0).unsqueeze(1), sinkhorn.FAR)
    a, b = ((mass + 1e-12) / (mass + 1e-12).sum(dim=-1, keepdim=True) for mass in (a, b))
    solved = solve_batch(
        cost, reg=eps, a=a, b=b, max_iter=iterations, tol=tolerance / math.sqrt(cost.shape[1]), method="log_sinkhorn",
        grad="detach",
    )  # fmt: skip
    return solved.plan  # type: ignore[no-any-return]


def solver_for(images: TokenSets, captions: TokenSets, how: Transport) -> Solver:
    """The solver of a backend.

    Raises:
        UserError: for a backend that cannot run here.
    """
    backend = resolved(how.backend, images.tokens.device)
    if backend == "pot":
        return PotSolver(images, captions, how)
    if backend == "triton":
        from poisonbench.defenses.otcclip.triton_shapes import fits
        from poisonbench.defenses.otcclip.triton_solver import TritonSolver, proven

        sizes = images.tokens.shape[1], captions.tokens.shape[1]
        if how.backend == "triton" or (fits(*sizes) and proven(images.tokens.device)):
            return TritonSolver(images, captions, how)
    return TorchSolver(images, captions, how)
