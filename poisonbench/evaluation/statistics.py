"""Intervals: of a proportion, of an accuracy over dependent pictures, and of a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
"""Confidence of every interval."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """Lower and upper end of a 95% interval."""

    low: float
    high: float


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        half_width: of the 95% t-interval ``mean ± half_width``; None for a single seed.
        n: number of seeds.
    """

    mean: float
    half_width: float | None
    n: int


def wilson(successes: int, trials: int) -> Interval:
    """The Wilson score interval of ``successes`` out of ``trials``; everything is possible after no trial.

    Raises:
        ValueError: unless 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Interval(0.0, 1.0)
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    share = successes / trials  # rounding must not push it out of its own interval
    return Interval(max(0.0, min(float(found.low), share)), min(1.0, max(float(found.high), share)))


def cluster_interval(
    correct: npt.NDArray[np.bool_], clusters: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The percentile bootstrap interval of an accuracy, resampling whole clusters.

    Clusters with equal counts are exchangeable, so each resample draws how often each *kind* of cluster
    occurs: one small multinomial instead of a draw per cluster, with the same distribution.

    Where all clusters are alike every resample is the same, which says nothing about the next concept. Then a Wilson
    interval takes its place: over clusters if all examples are right or all are wrong, else over examples, which vary as
    much within a cluster as between clusters. A single cluster that is partly right says nothing at all.

    Args:
        correct: (n,), n >= 1.
        clusters: (n,) the cluster (concept) of each example.
        resamples: bootstrap samples.
        seed: of the draws; the order of the examples does not matter.

    Raises:
        ValueError: if there is no example or the lengths differ.
    """
    if len(correct) == 0 or len(correct) != len(clusters):
        raise ValueError(f"{len(correct)} outcomes for {len(clusters)} clusters")
    _, member = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    groups = int(member.max()) + 1
    if correct.all() or not correct.any():
        return wilson(groups if correct.all() else 0, groups)
    counts = np.stack([np.bincount(member, weights=correct), np.bincount(member)], axis=1)
    kinds, often = np.unique(counts, axis=0, return_counts=True)
    if len(kinds) == 1:
        return wilson(int(correct.sum()), len(correct)) if groups > 1 else Interval(0.0, 1.0)
    drawn = np.random.default_rng(seed).multinomial(groups, often / groups, size=resamples) @ kinds
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], (tail, 100 - tail))
    return Interval(float(low), float(high))


def seed_mean(values: Sequence[float]) -> SeedMean:
    """The mean over seeds with the half width of its t-interval.

    Raises:
        ValueError: if there is no value.
    """
    if not values:
        raise ValueError("no seeds to average")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return SeedMean(mean, None, 1)
    from scipy.stats import t

    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return SeedMean(mean, float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error, len(values))
