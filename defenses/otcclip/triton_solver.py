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
from poisonbench.defenses.otcclip.triton_shapes import bounds_shape, costs_shape, dot_precision

log = logging.getLogger(__name__)


class TritonSolver(Solver):
    """Fused bounds and fused solving; device memory holds tokens, pairs and one number per pair."""

    def __init__(self, images: TokenSets, captions: TokenSets, how: Transport) -> None:
        super().__init__(images, captions, how)
        # padding may hold anything, and no mass of zero takes away what is not finite
        self._visual, self._text = (sets.tokens_repeated().contiguous() for sets in (images, captions))
        self._a, self._b = images.mass.contiguous(), captions.mass.contiguous()

    @property
    def block(self) -> int:
        """Pairs of one launch: two indices, a ceiling and a cost each."""
        return max(1, self.how.budget // 64)

    def bounds(self) -> Tensor:  # noqa: D102
        device, shape = self._visual.device, bounds_shape(*self._sizes, self._visual.shape[2])
        visual, text = Rounded.of(self._visual, torch.bfloat16), Rounded.of(self._text, torch.bfloat16)
        # the interpreter multiplies the bits of bf16 numbers
        held = torch.float32 if interpreted() else torch.bfloat16
        out = torch.empty(len(self.images), len(self.captions), device=device)
        grid = (triton.cdiv(len(self.images), shape["BI"]) * triton.cdiv(len(self.captions), shape["BC"]),)
        unit = torch.finfo(torch.bfloat16).eps / 2
        bounds_kernel[grid](
            visual.tokens.to(held), text.tokens.to(held), self._a, self._b,
            ((self._a * visual.away).sum(dim=1) * (1 + unit)).contiguous(),
            (self._b * text.away).sum(dim=1).contiguous(),
            out, len(self.images), len(self.captions), *self._sizes, **shape,
        )  # fmt: skip
        return out - accumulation(torch.float32, device, self._visual.shape[-1])

    def _costs(self, image: Tensor, caption: Tensor, ceiling: Tensor | None) -> Tensor:
        out = torch.empty(len(image), device=image.device)
        highest = torch.full_like(out, torch.inf) if ceiling is None else ceiling.contiguous()
        shape = costs_shape(*self._sizes, self._visual.shape[2], dot_precision(image.device))
        costs_kernel[(len(image),)](
            self._visual, self._text, self._a, self._b, image.contiguous(), caption.contiguous(), highest, out,
            *self._sizes, self.how.eps, self.how.tolerance, self.how.iterations, sinkhorn.stages(self.how.eps), **shape,
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
