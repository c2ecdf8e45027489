"""The solver for CUDA: launches the fused kernels of triton_kernels.py."""

from __future__ import annotations

import logging
from functools import cache

import torch
import torch.nn.functional as F
import triton  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

from poisonbench.defenses.otcclip import sinkhorn
from poisonbench.defenses.otcclip.bounds import Rounded, accumulation
from poisonbench.defenses.otcclip.solvers import Solver, TorchSolver
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.defenses.otcclip.transport import Transport, interpreted
from poisonbench.defenses.otcclip.triton_kernels import bounds_kernel, costs_kernel

log = logging.getLogger(__name__)

SMALL, LARGEST = 64 * 64, 128 * 128
"""Entries of a padded cost matrix that the registers of four warps hold beside the kernel made of it, and of eight."""
TILE = 128
"""Rows and columns of a tile of products, at least."""
DEPTH = 64
"""Dimensions that are multiplied at a time."""


def padded(tokens: int) -> int:
    """The power of two that a kernel pads a number of tokens to."""
    return max(16, int(triton.next_power_of_2(tokens)))


def fits(images: TokenSets, captions: TokenSets) -> bool:
    """Whether a pair's cost matrix fits the registers."""
    return padded(images.tokens.shape[1]) * padded(captions.tokens.shape[1]) <= LARGEST


class TritonSolver(Solver):
    """Fused bounds and fused solving; device memory holds tokens, pairs and one number per pair."""

    def __init__(self, images: TokenSets, captions: TokenSets, how: Transport) -> None:
        super().__init__(images, captions, how)
        # padding may hold anything, and no mass of zero takes away what is not finite
        self._visual, self._text = (sets.tokens_repeated().contiguous() for sets in (images, captions))
        self._a, self._b = images.mass.contiguous(), captions.mass.contiguous()
        self._padded = padded(images.tokens.shape[1]), padded(captions.tokens.shape[1])

    @property
    def block(self) -> int:
        """Pairs of one launch: two indices, a ceiling and a cost each."""
        return max(1, self.how.budget // 64)

    def bounds(self) -> Tensor:  # noqa: D102
        device, (m, n) = self._visual.device, self._padded
        visual, text = Rounded.of(self._visual, torch.bfloat16), Rounded.of(self._text, torch.bfloat16)
        # the interpreter multiplies the bits of bf16 numbers
        held = torch.float32 if interpreted() else torch.bfloat16
        out = torch.empty(len(self.images), len(self.captions), device=device)
        images, captions = max(1, TILE // m), max(1, TILE // n)
        grid = (triton.cdiv(len(self.images), images) * triton.cdiv(len(self.captions), captions),)
        unit = torch.finfo(torch.bfloat16).eps / 2
        bounds_kernel[grid](
            visual.tokens.to(held), text.tokens.to(held), self._a, self._b,
            ((self._a * visual.away).sum(dim=1) * (1 + unit)).contiguous(),
            (self._b * text.away).sum(dim=1).contiguous(),
            out, len(self.images), len(self.captions), *self._sizes,
            D=self._visual.shape[2], BI=images, MP=m, BC=captions, NP=n, BD=DEPTH, ROWS_FIRST=self._sizes[0] >= self._sizes[1],
            FAR=sinkhorn.FAR, num_warps=8,
        )  # fmt: skip
        return out - accumulation(torch.float32, device, self._visual.shape[-1])

    def _costs(self, image: Tensor, caption: Tensor, ceiling: Tensor | None) -> Tensor:
        out = torch.empty(len(image), device=image.device)
        highest = torch.full_like(out, torch.inf) if ceiling is None else ceiling.contiguous()
        m, n = self._padded
        costs_kernel[(len(image),)](
            self._visual, self._text, self._a, self._b, image.contiguous(), caption.contiguous(), highest, out,
            *self._sizes, self.how.eps, self.how.tolerance, self.how.iterations, sinkhorn.stages(self.how.eps),
            D=self._visual.shape[2], MP=m, NP=n, BD=DEPTH // 2, STAGE=sinkhorn.STAGE, ABSORB=sinkhorn.ABSORB, FAR=sinkhorn.FAR,
            TINY=sinkhorn.TINY, num_warps=4 if m * n <= SMALL else 8,
        )  # fmt: skip
        return out

    @property
    def _sizes(self) -> tuple[int, int]:
        return self._visual.shape[1], self._text.shape[1]


@cache
def proven(device: torch.device) -> bool:
    """Whether the kernels run on a device and bound and solve a few random sets as PyTorch does; a warning if not.

    Compilers and GPUs are many: ``auto`` takes the fused kernels where they have shown that they work.
    """
    draw = torch.Generator().manual_seed(0)
    tokens = F.normalize(torch.randn(2, 4, 16, 64, generator=draw), dim=-1).to(device)
    images, captions = (TokenSets.of(side) for side in tokens)
    pairs = torch.arange(4, device=device)
    solver = TritonSolver(images, captions, Transport())
    try:
        wanted, found = (
            TorchSolver(images, captions, Transport()).costs(pairs, pairs),
            solver.costs(pairs, pairs),
        )
        right = torch.allclose(found, wanted, atol=1e-3) and bool(
            (solver.bounds().diagonal() <= wanted).all()
        )
    except Exception as error:  # compilers and drivers fail with exceptions of their own
        log.warning("the Triton kernels do not run on %s (%s); PyTorch solves instead", device, error)
        return False
    if not right:
        log.warning("the Triton kernels are wrong on %s; PyTorch solves instead", device)
    return right
