"""Randomness keyed by purpose: who draws nothing changes nothing, and a resumed run draws what it would have.

Every generator is made anew from (seed, purpose, keys ...), so that no draw depends on how many draws other parts made.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

Key = int | str


def stable_seed(*keys: Key) -> int:
    """A 63-bit seed from a sequence of words and numbers, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(str(key) for key in keys).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_rng(*keys: Key) -> np.random.Generator:
    """A NumPy generator for the purpose that the keys name."""
    return np.random.default_rng(stable_seed(*keys))


def torch_rng(*keys: Key) -> torch.Generator:
    """A CPU torch generator for the purpose that the keys name."""
    return torch.Generator().manual_seed(stable_seed(*keys))
