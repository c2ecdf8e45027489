"""The device that a cell runs on."""

from __future__ import annotations

import resource
import sys

import torch


def prepare(device: str, threads: int) -> None:
    """Set the number of CPU threads and start counting peak device memory."""
    torch.set_num_threads(threads)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> int:
    """Peak bytes: allocated on the GPU since ``prepare``, or resident in this process so far."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
