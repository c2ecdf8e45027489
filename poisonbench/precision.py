"""The numbers that towers are computed in: those that the tier asks for, where the hardware multiplies them."""

from __future__ import annotations

import torch

from poisonbench.tier import Precision


def precision_on(device: str | torch.device, asked: Precision) -> Precision:
    """What ``asked`` comes to on a device: bf16 that it would have to emulate is fp32, as exact and many times faster."""
    return asked if asked == "fp32" or multiplies_bf16(device) else "fp32"


def multiplies_bf16(device: str | torch.device) -> bool:
    """Whether a GPU (compute capability 8.0 or more) or processor (AVX-512 BF16) has instructions for bf16."""
    if torch.device(device).type == "cpu":
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
