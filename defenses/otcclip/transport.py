"""How transport is computed: the entropy, the accuracy, the backend and the memory that it may take."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from pydantic import Field

from poisonbench.errors import UserError
from poisonbench.settings import Settings

Backend = Literal["auto", "torch", "triton", "pot"]
"""``torch`` runs anywhere, ``triton`` is fused for CUDA, ``pot`` is POT's ``ot.batch`` (the reference), ``auto`` picks."""


class Transport(Settings):
    """Settings of the matcher.

    Attributes:
        eps: weight of the entropy of the plans.
        tolerance: error of a plan's marginals (L1) at which it has converged; plans are then rounded to them.
        iterations: Sinkhorn iterations at most; only entropies near 0.01 between tight clusters of tokens need thousands.
        backend: who computes.
        budget: bytes that the problems and products of one step may take, beside the tokens, copies of them that are rounded
            or turned, and the (images x captions) results.
    """

    eps: float = Field(0.1, ge=0.005)
    tolerance: float = Field(1e-4, gt=0)
    iterations: int = Field(20000, ge=1)
    backend: Backend = "auto"
    budget: int = Field(1 << 28, ge=1 << 16)


def resolved(backend: Backend, device: torch.device) -> Backend:
    """The backend that ``auto`` stands for on a device.

    Raises:
        UserError: for ``triton`` where it cannot run.
    """
    if backend == "auto":
        return "triton" if device.type == "cuda" and has_triton() else "torch"
    if backend == "triton" and not has_triton():
        raise UserError("field 'backend': 'triton' is not installed; use 'torch' or 'auto'")
    if backend == "triton" and device.type != "cuda" and not interpreted():
        raise UserError(
            f"field 'backend': 'triton' needs a CUDA device, not '{device.type}'; use 'torch' or 'auto'"
        )
    return backend


@cache
def has_triton() -> bool:
    """Whether Triton can be imported; a broken one cannot."""
    try:
        import triton  # type: ignore[import-untyped,unused-ignore]  # noqa: F401
    except Exception:  # whatever its libraries raise
        return False
    return True


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU (for tests)."""
    import os

    return os.environ.get("TRITON_INTERPRET") == "1"
