"""Doubt: pairs with captions of a kind that often does not fit must fit better, others less well."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.defenses.otcclip.doubt import FEWEST, NEAREST, RELIEF, Doubt

KINDS, EACH, D = 4, 400, 16
ROWS = KINDS * EACH
KIND_OF = torch.arange(ROWS) % KINDS
ALONE = torch.arange(ROWS)


def captions(seed: int = 0, spread: float = 0.3) -> Tensor:
    """Embeddings that scatter around the centre of their kind."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.eye(KINDS, D)
    away = F.normalize(torch.randn(ROWS, D, generator=rng), dim=1)
    return F.normalize(centres[KIND_OF] + spread * away, dim=1)


def misfits(shares: list[float], seed: int = 1) -> Tensor:
    """Pairs of every kind, of which a share does not fit."""
    return torch.rand(ROWS, generator=torch.Generator().manual_seed(seed)) < torch.tensor(shares)[KIND_OF]


def weighed(doubt: Doubt, text: Tensor, misfit: Tensor, tolerance: float = 0.0, epochs: int = 1) -> Tensor:
    """The doubts of all rows in the last epoch, after one in which the pool is filled."""
    for _ in range(1 + epochs):
        found = torch.cat(
            [doubt.weigh(rows, text[rows], misfit[rows], tolerance) for rows in ALONE.split(100)]
        )
    return found


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 3), st.integers(0, 2**16))
def test_the_kind_that_does_not_fit_is_doubted_and_the_others_are_not(bad: int, seed: int) -> None:
    shares = [0.1] * KINDS
    shares[bad] = 0.4
    found = weighed(Doubt(ALONE, memory=0.0, power=2.0), captions(seed), misfits(shares))
    guilty = bad == KIND_OF
    assert found[guilty].min() > 1 and found[guilty].min() > found[~guilty].max()


def test_the_doubt_is_the_ratio_of_odds_beyond_the_tolerance_to_the_power() -> None:
    text, misfit = captions(spread=0.0), misfits([0.1, 0.1, 0.1, 0.4])
    of_all, of_kind = 2 * misfit.float().mean(), 2 * misfit[KIND_OF == 3].float().mean()
    expected = (of_kind / (1 - of_kind)) / (of_all / (1 - of_all))
    once, cubed = (weighed(Doubt(ALONE, 0.0, power), text, misfit) for power in (1.0, 3.0))
    tolerant = weighed(Doubt(ALONE, 0.0, 3.0), text, misfit, tolerance=0.5)
    assert float(once[KIND_OF == 3].median()) == pytest.approx(float(expected), rel=0.2)
    assert torch.allclose(cubed, (once**3).clamp_min(RELIEF), rtol=1e-4)
    assert torch.allclose(tolerant, (once**3 * math.exp(-1.5)).clamp_min(RELIEF), rtol=1e-4)


def test_kinds_that_fit_are_believed_more_readily_but_not_blindly() -> None:
    found = weighed(Doubt(ALONE, memory=0.0, power=8.0), captions(), misfits([0.3, 0.0, 0.0, 0.0]))
    assert (found[KIND_OF != 0] == RELIEF).all()


def test_where_all_kinds_misfit_alike_nobody_is_doubted_much() -> None:
    doubt = Doubt(ALONE, memory=0.0, power=1.0)
    weighed(doubt, captions(), misfits([0.2] * KINDS))
    assert doubt.excess.mean.abs().mean() < 0.3


def test_a_kind_of_which_nothing_fits_gives_finite_doubt() -> None:
    found = weighed(Doubt(ALONE, 0.5, power=8.0), captions(), misfits([1.0, 0.0, 0.0, 0.0]))
    assert torch.isfinite(found).all() and (found > 0).all()


def test_before_enough_pairs_are_known_no_kind_is_doubted() -> None:
    doubt, text, misfit = Doubt(ALONE, 0.0, 8.0), captions(), misfits([0.1, 0.1, 0.1, 0.4])
    assert FEWEST > NEAREST
    for rows in ALONE[:FEWEST].split(64):
        assert (doubt.weigh(rows, text[rows], misfit[rows], 0.0) == 1).all()
    assert not (doubt.weigh(ALONE[:64], text[:64], misfit[:64], 0.0) == 1).all()


def test_other_captions_of_the_same_picture_are_not_asked() -> None:
    pictures = torch.where(KIND_OF == 0, 0, ALONE + 1)
    text, misfit = captions(), misfits([1.0, 0.1, 0.1, 0.1])
    apart, together = Doubt(ALONE, 0.0, 1.0), Doubt(pictures, 0.0, 1.0)
    for doubt in (apart, together):
        weighed(doubt, text, misfit)
    assert (together.excess.mean < apart.excess.mean)[KIND_OF == 0].all(), (
        "a picture is no witness for itself"
    )


def test_doubt_is_remembered() -> None:
    text, bad, good = captions(), misfits([0.5, 0.1, 0.1, 0.1]), misfits([0.1] * KINDS)
    forgetful, mindful = (Doubt(ALONE, memory, 1.0) for memory in (0.0, 0.9))
    for doubt in (forgetful, mindful):
        weighed(doubt, text, bad)
        weighed(doubt, text, good)
    more = (mindful.excess.mean - forgetful.excess.mean)[KIND_OF == 0]
    assert (more > 0).all() and more.mean() > 1


def test_a_restored_doubt_goes_on_as_the_first_would() -> None:
    text, misfit = captions(), misfits([0.1, 0.1, 0.1, 0.4])
    first, second = Doubt(ALONE, 0.5, 2.0), Doubt(ALONE, 0.5, 2.0)
    weighed(first, text, misfit)
    second.load_state_dict(first.state_dict())
    after = [weighed(doubt, text, ~misfit) for doubt in (first, second)]
    assert torch.equal(*after)
