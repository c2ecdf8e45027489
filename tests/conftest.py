"""What holds for all tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums over threads differ in their last bits, and what runs in this process may set how many there are."""
    torch.set_num_threads(1)
