"""What holds for all tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums over threads differ in their last bits, and what one test trains another compares."""
    torch.set_num_threads(1)
