"""Separation: the level is the share of mismatched pairs that pass, and evidence belongs to its row."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.defenses.otcclip.separation import Separation, standardised

BATCH, REFERENCES = 64, 24
seeds = st.integers(0, 2**32 - 1)


def offsets(rng: torch.Generator, batch: int = BATCH, count: int = REFERENCES) -> list[int]:
    return [0, *(torch.randperm(batch - 1, generator=rng)[:count] + 1).tolist()]


def on_ring(every: Tensor, shifts: list[int]) -> Tensor:
    """The fits (b, 1 + r) on a ring out of those of all images with all captions (b, b)."""
    rows = torch.arange(len(every))
    return torch.stack([every[rows, (rows + shift) % len(every)] for shift in shifts], dim=1)


def drawn(rng: torch.Generator, better: float = 0.0) -> tuple[Tensor, Tensor]:
    """Standardised fits of a batch whose own pairs lie ``better`` standard deviations above the others."""
    shifts = offsets(rng)
    every = torch.randn(BATCH, BATCH, generator=rng) + better * torch.eye(BATCH)
    return standardised(on_ring(0.3 + 0.05 * every, shifts), shifts)


def alone(rows: int, memory: float = 0.5) -> Separation:
    """A separation in which every row has a picture of its own."""
    return Separation(torch.arange(rows), memory)


def passed(level: float, better: float = 0.0, batches: int = 60, seed: int = 0) -> float:
    """The share of rows, each seen once, that count as sound once there are enough decoys."""
    rng = torch.Generator().manual_seed(seed)
    separation, verdicts = alone(batches * BATCH), []
    for rows in torch.arange(batches * BATCH).view(batches, BATCH):
        verdicts.append(separation.judge(rows, *drawn(rng, better), level)[0])
    return float(torch.cat(verdicts[batches // 3 :]).float().mean())


def above(value: Tensor, references: list[Tensor]) -> Tensor:
    others = torch.stack(references)
    return (value - others.mean()) / others.std()


@settings(deadline=None, max_examples=10)
@given(seeds, st.integers(6, 9), st.integers(4, 5))
def test_own_and_decoy_are_standardised_by_mismatched_pairs_of_both_directions(
    seed: int, batch: int, references: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    shifts, every = (
        offsets(rng, batch, references),
        torch.randn(batch, batch, generator=rng, dtype=torch.float64),
    )
    own, decoy = standardised(on_ring(every, shifts), shifts)
    for i in range(batch):
        j, used = (i + shifts[1]) % batch, shifts[1:]
        expected = above(every[i, i], [every[i, (i + s) % batch] for s in used])
        expected = expected + above(every[i, i], [every[(i - s) % batch, i] for s in used])
        assert float(own[i]) == pytest.approx(float(expected))
        expected = above(every[i, j], [every[i, (i + s) % batch] for s in used[1:]])
        expected = expected + above(every[i, j], [every[(j - s) % batch, j] for s in used[1:]])
        assert float(decoy[i]) == pytest.approx(float(expected))


@settings(deadline=None, max_examples=10)
@given(seeds, st.floats(0.1, 10), st.floats(-1, 1))
def test_the_scale_of_fits_does_not_matter(seed: int, scale: float, shift: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    shifts, every = offsets(rng), torch.randn(BATCH, BATCH, generator=rng, dtype=torch.float64)
    plain, moved = (standardised(on_ring(m, shifts), shifts) for m in (every, scale * every + shift))
    for before, after in zip(plain, moved, strict=True):
        assert torch.allclose(before, after)


@pytest.mark.parametrize("level", [0.05, 0.1, 0.25, 0.5])
def test_of_pairs_that_fit_like_mismatched_ones_the_level_passes(level: float) -> None:
    judged, decoys = 40 * BATCH, 20 * BATCH
    error = math.sqrt(level * (1 - level) * (1 / judged + 1 / decoys))
    assert passed(level) == pytest.approx(level, abs=4 * error)


@pytest.mark.parametrize("level", [0.05, 0.25])
def test_pairs_that_fit_clearly_better_pass(level: float) -> None:
    assert passed(level, better=6.0, batches=20) > 0.99


def test_pairs_that_fit_clearly_worse_do_not_pass() -> None:
    assert passed(0.25, better=-6.0, batches=20) < 0.01


def test_a_larger_level_lets_the_same_pairs_and_more_pass() -> None:
    rng = torch.Generator().manual_seed(1)
    own, decoy = drawn(rng)
    strict, lenient = (alone(BATCH).judge(torch.arange(BATCH), own, decoy, level)[0] for level in (0.1, 0.4))
    assert (strict <= lenient).all() and strict.sum() < lenient.sum()


@settings(deadline=None)
@given(st.floats(0, 0.95), st.lists(st.floats(-5, 5), min_size=1, max_size=5))
def test_evidence_is_a_running_mean_that_begins_with_the_first_look(
    memory: float, looks: list[float]
) -> None:
    separation, expected = alone(3, memory), looks[0]
    for look in looks:
        separation.judge(torch.tensor([1]), torch.tensor([look]), torch.zeros(1), 0.5)
    for look in looks[1:]:
        expected = memory * expected + (1 - memory) * look
    assert float(separation.evidence.mean[1]) == pytest.approx(expected, abs=1e-4)


def test_evidence_belongs_to_its_row() -> None:
    separation = alone(5)
    separation.judge(torch.tensor([3, 0]), torch.tensor([4.0, -2.0]), torch.zeros(2), 0.5)
    assert separation.evidence.mean.tolist() == [-2, 0, 0, 4, 0]
    assert separation.evidence.seen.tolist() == [True, False, False, True, False]
    separation.judge(torch.tensor([1, 3]), torch.tensor([1.0, 2.0]), torch.zeros(2), 0.5)
    assert separation.evidence.mean.tolist() == [-2, 1, 0, 3, 0]
    assert separation.evidence.seen.tolist() == [True, True, False, True, False]


def test_earlier_evidence_decides_with_the_present_look() -> None:
    separation, row = alone(2), torch.tensor([0])
    decoys = torch.linspace(-1, 1, 101)
    assert separation.judge(row, torch.tensor([9.0]), decoys, 0.25)[0].all()
    assert separation.judge(row, torch.tensor([-2.0]), decoys, 0.25)[0].all(), "one bad look is forgiven"
    assert not separation.judge(torch.tensor([1]), torch.tensor([-2.0]), decoys, 0.25)[0].any()


def test_ill_fitting_pairs_are_those_below_the_typical_decoy() -> None:
    separation, decoys = alone(3), torch.linspace(-1, 1, 101)
    sound, unfit = separation.judge(torch.arange(3), torch.tensor([-0.5, 0.3, 2.0]), decoys, 0.25)
    assert sound.tolist() == [False, False, True] and unfit.tolist() == [True, False, False]


def test_a_restored_separation_goes_on_as_the_first_would() -> None:
    rng, rows = torch.Generator().manual_seed(2), torch.arange(BATCH)
    first, restored = alone(BATCH), alone(BATCH)
    first.judge(rows, *drawn(rng), 0.25)
    state = first.state_dict()
    restored.load_state_dict(state)
    own, decoy = drawn(rng, better=0.5)
    verdicts = [torch.stack(one.judge(rows, own, decoy, 0.25)) for one in (first, restored)]
    assert torch.equal(*verdicts) and torch.equal(first.evidence.mean, restored.evidence.mean)
    assert not torch.equal(first.state_dict()["evidence.mean"], state["evidence.mean"]), (
        "a saved state stays as it was"
    )


def test_pairs_of_one_picture_are_judged_together() -> None:
    separation = Separation(torch.tensor([0, 1, 0]), memory=0.5)
    decoys, looks = torch.linspace(-1, 1, 101), torch.tensor([3.0, 3.0, -4.0])
    verdict, _ = separation.judge(torch.arange(3), looks, decoys, 0.25)
    assert verdict.tolist() == [False, True, False], "one good caption does not save a picture's other pairs"
    assert separation.evidence.mean.tolist() == looks.tolist()


def test_a_picture_in_several_copies_must_pass_at_a_fraction_of_the_level() -> None:
    decoys, looks = torch.linspace(0, 100, 101), torch.full((3,), 80.0)
    separation = Separation(torch.tensor([0, 1, 0]), memory=0.5)
    assert separation.judge(torch.arange(3), looks, decoys, 0.25)[0].tolist() == [False, True, False]


def test_copies_that_were_not_seen_yet_bear_no_witness() -> None:
    separation = Separation(torch.tensor([0, 0]), memory=0.5)
    assert separation.judge(torch.tensor([1]), torch.tensor([3.0]), torch.linspace(-1, 1, 101), 0.25)[0].all()
