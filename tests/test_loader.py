"""The loader: what a step sees follows from seed, epoch and step, and from nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.conformance.data import tiny_data
from poisonbench.loader import CaptionTokens, Loader
from poisonbench.pairs import Rows
from poisonbench.tokens import Tokenizer

DATA = tiny_data()
TOKENIZER = Tokenizer.trimmed_to([text for options in DATA.train.captions for text in options], 12)
LOADER = Loader(DATA.train, TOKENIZER, DATA.synonyms, batch=32, seed=5)
ALL: Rows = np.arange(len(DATA.train))


def fresh(**changes: object) -> Loader:
    """A loader that has drawn nothing yet."""
    return replace(LOADER, **changes)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.sets(st.integers(0, 159), min_size=1), st.integers(2, 64), st.integers(1, 5), st.booleans())
def test_a_pass_visits_its_rows_once_and_may_leave_out_an_incomplete_batch(
    rows: set[int], batch: int, epoch: int, drop_last: bool
) -> None:
    steps = fresh(batch=batch).order(np.array(sorted(rows)), epoch, 0, drop_last)
    seen = np.concatenate(steps).tolist()
    left_out = len(rows) % batch if drop_last and len(rows) > batch else 0
    assert len(seen) == len(set(seen)) == len(rows) - left_out
    assert set(seen) <= rows
    assert all(len(step) == batch for step in steps[:-1])


def test_fewer_rows_than_a_batch_make_one_short_batch() -> None:
    [step] = LOADER.order(ALL[:7], 1, 0, drop_last=True)
    assert sorted(step.tolist()) == list(range(7))


def test_the_order_differs_by_epoch_pass_and_seed_and_is_the_same_otherwise() -> None:
    def order(loader: Loader, epoch: int, stage: int) -> tuple[int, ...]:
        return tuple(np.concatenate(loader.order(ALL, epoch, stage, False)).tolist())

    draws = [order(LOADER, 1, 0), order(LOADER, 2, 0), order(LOADER, 1, 1), order(fresh(seed=6), 1, 0)]
    assert len(set(draws)) == 4
    assert order(fresh(), 2, 0) == draws[1], "what was drawn before does not matter"


def test_views_depend_on_their_key_and_not_on_what_was_drawn_before() -> None:
    rows = np.array([4, 2, 9])
    first = LOADER.images(rows, "roclip", (1, 0, 3, 0))
    torch.rand(3)
    np.random.default_rng().random()
    LOADER.images(rows, "roclip", (1, 0, 4, 0))
    assert torch.equal(LOADER.images(rows, "roclip", (1, 0, 3, 0)), first)
    assert not torch.equal(LOADER.images(rows, "roclip", (1, 0, 3, 1)), first)


@pytest.mark.parametrize("policy", ["none", "eda"])
def test_a_rows_caption_in_an_epoch_does_not_depend_on_its_batch(policy: str) -> None:
    whole = LOADER.tokens(ALL, policy, 3)  # type: ignore[arg-type]
    some = np.array([30, 1, 159, 1])
    assert torch.equal(fresh().tokens(some, policy, 3), whole[some])  # type: ignore[arg-type]


def test_a_row_is_trained_on_one_of_its_own_captions_and_on_each_of_them_in_time() -> None:
    seen = {tuple(LOADER.tokens(np.array([11]), "none", epoch)[0].tolist()) for epoch in range(1, 15)}
    assert seen == {tuple(ids.tolist()) for ids in TOKENIZER(DATA.train.captions[11])}


def test_two_text_views_are_augmented_apart() -> None:
    first, second = (LOADER.tokens(ALL, "eda", 1, view) for view in (0, 1))
    assert first.shape == second.shape and not torch.equal(first, second)


def test_rows_with_different_numbers_of_captions_share_one_table() -> None:
    captions = [("a",), ("b", "c", "d"), ("e", "f")]
    table = CaptionTokens.of(captions, TOKENIZER)
    for choice in range(6):
        expected = TOKENIZER([options[choice % len(options)] for options in captions])
        assert torch.equal(table.of_rows(np.arange(3), np.full(3, choice)), expected)
