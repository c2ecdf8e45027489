"""The pool: a first-in-first-out memory of recent rows."""

from __future__ import annotations

from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.pool import Bank, Pool

pushes = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def filled(capacity: int, counts: list[int]) -> Pool:
    """A pool after pushes of so many rows, numbered on."""
    pool, rows = Pool(capacity), torch.arange(sum(counts))
    for part in torch.split(rows, counts):
        pool.push(row=part, embedding=torch.stack([part, -part], dim=1).float())
    return pool


@settings(deadline=None)
@given(st.integers(1, 12), pushes)
def test_a_pool_holds_the_most_recent_entries(capacity: int, counts: list[int]) -> None:
    pool, expected = filled(capacity, counts), deque(range(sum(counts)), maxlen=capacity)
    assert len(pool) == len(expected)
    assert sorted(pool["row"].tolist()) == sorted(expected)


@settings(deadline=None)
@given(st.integers(1, 12), pushes)
def test_the_fields_of_an_entry_stay_together(capacity: int, counts: list[int]) -> None:
    pool = filled(capacity, counts)
    assert torch.equal(pool["embedding"][:, 0], pool["row"].float())
    assert torch.equal(pool["embedding"][:, 1], -pool["row"].float())


@settings(deadline=None)
@given(st.integers(1, 12), pushes, st.integers(1, 5))
def test_a_restored_pool_goes_on_as_the_first_would(capacity: int, counts: list[int], more: int) -> None:
    first, restored = filled(capacity, counts), Pool(capacity)
    restored.load_state_dict(first.state_dict())
    for pool in (first, restored):
        pool.push(row=torch.full((more,), -1), embedding=torch.zeros(more, 2))
    assert torch.equal(first["row"], restored["row"])
    assert torch.equal(first["embedding"], restored["embedding"])


def test_a_saved_state_does_not_change_with_the_pool() -> None:
    pool = filled(4, [4])
    state = pool.state_dict()
    pool.push(row=torch.tensor([99]), embedding=torch.ones(1, 2))
    assert state["store.row"].tolist() == [0, 1, 2, 3]


def test_what_enters_the_pool_carries_no_gradient() -> None:
    pool = Pool(2)
    pool.push(embedding=torch.ones(2, 3, requires_grad=True) * 2)
    assert not pool["embedding"].requires_grad


def test_a_new_pool_is_empty() -> None:
    assert len(Pool(3)) == 0


def bank(capacity: int) -> Bank:
    return Bank(capacity, torch.Generator().manual_seed(7))


def test_a_bank_begins_as_unit_noise_of_its_generator_that_names_no_row() -> None:
    query = torch.eye(3)
    (first, rows), (again, _) = bank(5).nearest(query), bank(5).nearest(query)
    assert torch.equal(first, again) and (rows == -1).all()
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))


def test_a_bank_gives_the_nearest_entry_and_its_row() -> None:
    memory = bank(3)
    memory.push(embedding=torch.eye(3), row=torch.tensor([10, 11, 12]))
    embedding, rows = memory.nearest(torch.tensor([[0.1, 0.2, 0.9], [0.9, 0.1, 0.2]]))
    assert rows.tolist() == [12, 10]
    assert torch.equal(embedding, torch.eye(3)[[2, 0]])


def test_what_a_bank_gives_carries_no_gradient_and_outlives_the_next_push() -> None:
    memory = bank(2)
    memory.push(embedding=torch.eye(2), row=torch.tensor([0, 1]))
    found, _ = memory.nearest(torch.eye(2, requires_grad=True))
    memory.push(embedding=-torch.eye(2), row=torch.tensor([2, 3]))
    assert not found.requires_grad and torch.equal(found, torch.eye(2))
