"""Running means per row: the first value counts alone, later ones by memory, and rows are apart. And recent values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poisonbench.defenses.otcclip.running import Recent, Running


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


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=30), st.floats(-5, 5, width=32))
def test_recent_values_are_reached_by_their_share_and_never_by_none(
    values: list[float], asked: float
) -> None:
    recent = Recent(count=20)
    for value in values:
        recent.add(torch.tensor([value]))
    kept = values[-20:]
    expected = (1 + sum(value >= asked for value in kept)) / (1 + len(kept))
    assert len(recent) == len(kept)
    assert float(recent.reach(torch.tensor([asked]))[0]) == pytest.approx(expected)


def test_a_share_of_the_recent_values_exceeds_the_threshold() -> None:
    recent = Recent()
    assert recent.exceeded_by(0.1) == float("inf"), "nothing exceeds what was never seen"
    recent.add(torch.arange(100.0))
    for share in (0.05, 0.25):
        assert (torch.arange(100.0) > recent.exceeded_by(share)).sum() == 100 * share


def test_a_restored_stream_forgets_as_the_first_would() -> None:
    first, second = Recent(count=3), Recent(count=3)
    first.add(torch.tensor([1.0, 2.0, 3.0]))
    second.load_state_dict(first.state_dict())
    for stream in (first, second):
        stream.add(torch.tensor([9.0]))
        assert stream.reach(torch.tensor([2.5])).tolist() == [0.75]
