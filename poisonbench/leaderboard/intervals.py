"""Numbers with their uncertainty: counts pooled over seeds, and means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poisonbench.evaluation.statistics import seed_mean, wilson


@dataclass(frozen=True)
class Estimate:
    """A number in [0, 1] with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Count:
    """``successes`` of ``trials``; ``trials`` is at least 1."""

    successes: int
    trials: int

    @property
    def value(self) -> float:
        """The share of successes."""
        return self.successes / self.trials

    def wilson(self) -> Estimate:
        """The share with its Wilson interval."""
        interval = wilson(self.successes, self.trials)
        return Estimate(self.value, interval.low, interval.high)


def pooled(counts: Sequence[tuple[int, int]]) -> Count | None:
    """Sums (successes, trials) pairs; None when there was no trial at all."""
    trials = sum(n for _, n in counts)
    return Count(sum(k for k, _ in counts), trials) if trials else None


def over_seeds(estimates: Sequence[Estimate]) -> Estimate | None:
    """The mean over seeds with its t-interval, clipped to [0, 1]; None without a seed.

    A single seed says nothing about the spread between seeds and keeps its own interval.
    """
    if not estimates:
        return None
    over = seed_mean([estimate.value for estimate in estimates])
    if over.half_width is None:
        return estimates[0]
    return Estimate(over.mean, max(0.0, over.mean - over.half_width), min(1.0, over.mean + over.half_width))
