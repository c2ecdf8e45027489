from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.evaluation.statistics import Interval, cluster_interval, seed_mean, wilson

Graded = list[tuple[bool, str]]

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
graded = st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefgh")), min_size=1, max_size=60)


@given(counts)
def test_a_wilson_interval_holds_the_observed_share_and_stays_within_0_and_1(count: tuple[int, int]) -> None:
    successes, trials = count
    found = wilson(successes, trials)
    assert 0 <= found.low <= successes / trials <= found.high <= 1
    assert found.high > found.low


@given(counts)
def test_a_wilson_interval_of_the_failures_is_the_mirror_image(count: tuple[int, int]) -> None:
    successes, trials = count
    found, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-9)


@given(counts, st.integers(2, 20))
def test_more_trials_at_the_same_share_narrow_a_wilson_interval(count: tuple[int, int], times: int) -> None:
    successes, trials = count
    few, many = wilson(successes, trials), wilson(successes * times, trials * times)
    assert many.high - many.low < few.high - few.low


def test_the_protocols_example_fifteen_of_sixteen_spans_72_to_99_percent() -> None:
    found = wilson(15, 16)
    assert (round(found.low, 2), round(found.high, 2)) == (0.72, 0.99)


def test_no_trial_says_nothing_and_impossible_counts_are_refused() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)
    with pytest.raises(ValueError, match="5 successes in 4 trials"):
        wilson(5, 4)


@settings(max_examples=50, deadline=None)
@given(graded, st.randoms(use_true_random=False))
def test_a_cluster_interval_is_a_range_of_shares_whatever_the_order(graded: Graded, random: Random) -> None:
    found = interval_of(graded)
    assert 0 <= found.low <= found.high <= 1
    random.shuffle(graded)
    assert interval_of(graded) == found


def test_a_cluster_interval_agrees_with_a_plain_bootstrap_over_clusters() -> None:
    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 80, 400)
    correct = rng.random(400) < 0.3 + 0.4 * (clusters % 2)
    groups = [correct[clusters == c] for c in np.unique(clusters)]
    means = []
    for _ in range(4000):
        drawn = [groups[g] for g in rng.integers(0, len(groups), len(groups))]
        means.append(np.concatenate(drawn).mean())
    found = cluster_interval(correct, [str(c) for c in clusters], resamples=4000)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))), abs=0.01)


def test_twins_of_one_concept_count_less_than_independent_pictures() -> None:
    correct = np.repeat(np.arange(40) % 2 == 0, 5)
    apart = cluster_interval(correct, [str(row) for row in range(200)])
    together = cluster_interval(correct, [str(row // 5) for row in range(200)])
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_a_perfect_score_on_few_concepts_still_leaves_doubt() -> None:
    found = cluster_interval(np.ones(30, dtype=bool), [str(row % 3) for row in range(30)])
    assert found == wilson(3, 3)


def test_clusters_that_are_all_alike_still_leave_doubt() -> None:
    half = np.arange(30) % 2 == 0
    assert cluster_interval(half, [str(row // 2) for row in range(30)]) == wilson(15, 30)
    assert cluster_interval(half, ["one"] * 30) == Interval(0.0, 1.0)


def test_the_mean_over_seeds_comes_with_a_t_interval_from_two_seeds_on() -> None:
    three = seed_mean([0.4, 0.5, 0.6])
    assert three.mean == pytest.approx(0.5)
    assert three.half_width == pytest.approx(4.302653 * 0.1 / np.sqrt(3), rel=1e-5)
    assert seed_mean([0.4]).half_width is None
    with pytest.raises(ValueError, match="no seeds"):
        seed_mean([])


def interval_of(graded: Graded) -> Interval:
    return cluster_interval(np.array([right for right, _ in graded]), [name for _, name in graded])
