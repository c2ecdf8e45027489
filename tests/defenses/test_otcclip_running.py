"""Running means per row: the first value counts alone, later ones by memory, and rows are apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poisonbench.defenses.otcclip.running import Running


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=6), st.floats(0, 0.9))
def test_newer_values_count_more(values: list[float], memory: float) -> None:
    running, expected = Running(2, memory), values[0]
    for at, value in enumerate(values):
        found = running.update(torch.tensor([1]), torch.tensor([value]))
        expected = value if not at else memory * expected + (1 - memory) * value
        assert float(found) == pytest.approx(expected, abs=1e-4)
    assert running.seen.tolist() == [False, True] and float(running.mean[0]) == 0


def test_state_goes_on_where_it_was() -> None:
    first, second = Running(3, 0.5), Running(3, 0.5)
    first.update(torch.tensor([0, 2]), torch.tensor([1.0, 3.0]))
    state = first.state_dict()
    second.load_state_dict(state)
    for running in (first, second):
        assert running.update(torch.tensor([2]), torch.tensor([1.0])).tolist() == [2.0]
    assert state["mean"].tolist() == [1.0, 0.0, 3.0], "a saved state stays as it was"
