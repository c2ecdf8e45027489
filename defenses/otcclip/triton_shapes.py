"""How problems are cut for the fused kernels: what the registers and the shared memory of every supported GPU hold."""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped,unused-ignore]

from poisonbench.defenses.otcclip import sinkhorn

SMALL, LARGEST = 64 * 64, 128 * 128
"""Entries of a padded cost matrix that the registers of four warps hold beside the kernel made of it, and of eight."""
TILE = 128
"""Rows and columns of a tile of products, if single sets do not make it larger."""
AREA = 256 * 128
"""Products of a tile that the registers of eight warps hold."""
SHARED = 96 * 1024
"""Bytes of operands in flight: a block of compute capability 8.6, 8.9 or 12 has 99 KiB of shared memory, others have more."""
STAGES = 3
"""Parts of the operands in flight: one is multiplied while the next ones come."""
SHALLOWEST = 16
"""Dimensions multiplied at a time, at least."""


def padded(tokens: int) -> int:
    """The power of two that a kernel pads a number of tokens to."""
    return max(16, int(triton.next_power_of_2(tokens)))


def fits(m: int, n: int) -> bool:
    """Whether the cost matrix of a pair of ``m`` and ``n`` tokens fits the registers."""
    return padded(m) * padded(n) <= LARGEST


def bounds_shape(m: int, n: int, d: int) -> dict[str, Any]:
    """Constants and options of the bounds' kernel for sets of ``m`` and ``n`` tokens of ``d`` dimensions in bf16."""
    high, wide = padded(m), padded(n)
    rows = max(high, min(TILE, AREA // max(wide, TILE)))
    columns = max(wide, min(TILE, AREA // rows))
    return {
        "D": d, "BI": rows // high, "MP": high, "BC": columns // wide, "NP": wide, "ROWS_FIRST": m >= n, "FAR": sinkhorn.FAR,
        "num_warps": 8, **_operands(rows + columns, torch.bfloat16.itemsize, deepest=64),
    }  # fmt: skip


def costs_shape(m: int, n: int, d: int, precision: str) -> dict[str, Any]:
    """Constants and options of the costs' kernel, which multiplies fp32 in ``precision``; sizes as for the bounds."""
    high, wide = padded(m), padded(n)
    return {
        "D": d, "MP": high, "NP": wide, "STAGE": sinkhorn.STAGE, "ABSORB": sinkhorn.ABSORB, "FAR": sinkhorn.FAR,
        "TINY": sinkhorn.TINY, "PRECISION": precision, "num_warps": 4 if high * wide <= SMALL else 8,
        **_operands(high + wide, torch.float32.itemsize, deepest=32),
    }  # fmt: skip


def dot_precision(device: torch.device) -> str:
    """How fp32 numbers are multiplied: by tensor cores where there are such, in three products that keep the precision."""
    tensor_cores = (
        device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) >= (8, 0)
    )
    return "tf32x3" if tensor_cores else "ieee"


def _operands(lines: int, itemsize: int, deepest: int) -> dict[str, int]:
    """The depth and the stages with which ``lines`` rows and columns of operands fit the shared memory."""
    room = SHARED // (STAGES * lines * itemsize)  # dimensions of each stage
    depth = min(deepest, 1 << (max(room, SHALLOWEST).bit_length() - 1))
    return {"BD": depth, "num_stages": STAGES if depth <= room else 1}
