"""SAFECLIP's division: a mixture of two Gaussians finds the safe pairs, whose share then grows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from poisonbench.defenses.safeclip.mixture import Floats, Mixture
from poisonbench.defenses.safeclip.split import Ranking, Split

ROWS = 200
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, low: int, high: int, spread: float = 0.05) -> Floats:
    """``low`` values around 0.1 and ``high`` values around 0.5, the upper ones of the given spread."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.concatenate([rng.normal(0.1, 0.05, low), rng.normal(0.5, spread, high)]))


def split(cosines: Floats, ranking: Ranking = "similarity", growth: float = 0.1, cap: float = 0.85) -> Split:
    found = Split(len(cosines), 0.9, growth, cap, ranking)
    found.note(torch.arange(len(cosines)), torch.from_numpy(cosines))
    return found


@settings(deadline=None, max_examples=15)
@given(seeds)
def test_the_mixture_is_the_one_that_scikit_learn_finds(seed: int) -> None:
    values = drawn(seed, 120, 80)
    theirs = GaussianMixture(2, random_state=0).fit(values[:, None])
    upper = int(np.argmax(theirs.means_))
    expected = theirs.predict_proba(values[:, None])[:, upper]
    np.testing.assert_allclose(Mixture.fitted(values).posterior(values), expected, atol=1e-3)


def test_the_mixture_knows_shares_means_and_spreads() -> None:
    found = Mixture.fitted(drawn(0, 3000, 1000, spread=0.02))
    np.testing.assert_allclose(found.weight, [0.75, 0.25], atol=0.02)
    np.testing.assert_allclose(found.mean, [0.1, 0.5], atol=0.01)
    np.testing.assert_allclose(found.variance**0.5, [0.05, 0.02], atol=0.005)


@pytest.mark.parametrize("values", [np.full(9, 0.3), np.array([0.3]), np.array([0.1, 0.4])], ids=str)
def test_values_that_are_no_mixture_still_get_posteriors(values: Floats) -> None:
    posterior = Mixture.fitted(values).monotone_posterior(values)
    assert ((posterior >= 0) & (posterior <= 1)).all()


@settings(deadline=None, max_examples=15)
@given(seeds, st.floats(0.02, 0.4))
def test_the_monotone_posterior_never_ranks_against_the_value(seed: int, spread: float) -> None:
    values = drawn(seed, 100, 100, spread)
    posterior = Mixture.fitted(values).monotone_posterior(values)
    assert (np.diff(posterior[np.argsort(values)]) >= 0).all()


def test_a_wide_upper_component_does_not_make_the_least_similar_pairs_safe() -> None:
    cosines = np.append(drawn(1, 150, 49, spread=0.3), -1.0)
    trusting, careful = split(cosines, "posterior"), split(cosines)
    for one in (trusting, careful):
        report = one.renew()
        assert report["posterior_against_similarity"] > 0
        assert report["split_disputed"] > 0
    assert trusting.safe[-1] and not careful.safe[-1]


def test_well_divided_pairs_are_not_disputed() -> None:
    report = split(drawn(2, 100, 100)).renew()
    assert report["split_disputed"] == 0
    assert report["safe_next"] == pytest.approx(0.5, abs=0.02)


def test_the_first_division_is_by_threshold_and_later_ones_take_a_growing_share_of_the_most_similar() -> None:
    cosines = drawn(3, 140, 60)
    found = split(cosines, cap=0.45)
    assert found.safe.all(), "before the first division every pair is safe"
    found.renew()
    assert found.safe.tolist() == (cosines > 0.3).tolist()
    for count in (80, 90, 90):
        found.renew()
        least = np.sort(cosines)[-count]
        assert found.safe.tolist() == (cosines >= least).tolist()


def test_the_posterior_s_ties_are_settled_by_similarity() -> None:
    cosines = np.concatenate([np.linspace(0.0, 0.01, 100), np.linspace(0.9, 0.91, 100)])
    found = split(cosines, "posterior", growth=-0.25)
    found.renew()
    found.renew()
    assert found.safe.tolist() == [row >= 150 for row in range(ROWS)], "all upper posteriors are 1"


def test_a_division_that_found_nothing_safe_grows_from_nothing() -> None:
    found = split(drawn(5, 100, 100), growth=0.1)
    found.made = 1
    found.renew()
    assert int(found.safe.sum()) == 20


def test_the_sizes_of_later_divisions_are_known_from_the_first() -> None:
    found = split(drawn(3, 140, 60), cap=0.45)
    sizes = [found.renew()["safe_next"] for _ in range(4)]
    assert [found.share(number) for number in range(4)] == pytest.approx(sizes)


def test_a_restored_division_goes_on_as_the_first_would() -> None:
    first = split(drawn(4, 100, 100))
    first.renew()
    restored = Split(ROWS, 0.9, 0.1, 0.85, "similarity")
    restored.load_state_dict(first.state_dict())
    assert torch.equal(first.safe, restored.safe)
    assert first.renew() == restored.renew()
    assert torch.equal(first.safe, restored.safe)
