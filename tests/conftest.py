"""What holds for all tests."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("suite", deadline=None)  # a busy machine is no failure
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums over threads differ in their last bits, and what one test trains another compares."""
    torch.set_num_threads(1)
