"""A mixture of two Gaussians on a line, fitted by expectation-maximisation with nothing drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FLOOR = 1e-6
"""Added to every variance, as in scikit-learn's GaussianMixture, whose stopping rule we share too."""


@dataclass(frozen=True)
class Mixture:
    """Two components, the one with the larger mean last.

    Attributes:
        weight: (2,), adds up to 1.
        mean: (2,).
        variance: (2,).
    """

    weight: Floats
    mean: Floats
    variance: Floats

    @classmethod
    def fitted(cls, values: Floats, iterations: int = 100, tolerance: float = 1e-3) -> Mixture:
        """The mixture that fits ``values`` (n,); it starts from their best division into two groups.

        Args:
            values: at least one finite number.
            iterations: at most so many.
            tolerance: stop where the mean log-likelihood gains less.
        """
        found, reached = cls._from(values, _two_groups(values)), -np.inf
        for _ in range(iterations):
            joint = found._log_joint(values)
            before, reached = reached, float(np.mean(np.logaddexp.reduce(joint, axis=1)))
            found = cls._from(values, _shares(joint))
            if reached - before < tolerance:
                break
        order = np.argsort(found.mean, kind="stable")
        return cls(found.weight[order], found.mean[order], found.variance[order])

    @classmethod
    def _from(cls, values: Floats, shares: Floats) -> Mixture:
        """The most likely mixture where value i belongs to component k by ``shares[i, k]``."""
        mass = shares.sum(axis=0) + 10 * np.finfo(np.float64).eps
        mean = values @ shares / mass
        variance = ((values[:, None] - mean) ** 2 * shares).sum(axis=0) / mass + FLOOR
        return cls(mass / mass.sum(), mean, variance)

    def posterior(self, values: Floats) -> Floats:
        """The chance (n,) that each value belongs to the component with the larger mean."""
        return _shares(self._log_joint(values))[:, 1]

    def monotone_posterior(self, values: Floats) -> Floats:
        """The posterior made to rise with the value.

        Where one component is much the wider, its tails win on both sides: a value far below both means would pass for a
        member of the upper component. Such values get 0, and beyond a peak the posterior stays at the peak.
        """
        order = np.argsort(values, kind="stable")
        ascending = np.where(values[order] < self.mean[0], 0.0, self.posterior(values[order]))
        found = np.empty_like(ascending)
        found[order] = np.maximum.accumulate(ascending)
        return found

    def _log_joint(self, values: Floats) -> Floats:
        """Log density (n, 2) of value and component."""
        spread = (values[:, None] - self.mean) ** 2 / self.variance
        joint: Floats = np.log(self.weight) - 0.5 * (np.log(2 * np.pi * self.variance) + spread)
        return joint


def _shares(joint: Floats) -> Floats:
    shares: Floats = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    return shares


def _two_groups(values: Floats) -> Floats:
    """Membership (n, 2) in the lower and upper group of the division with the least variance within (exact 2-means)."""
    order = np.argsort(values, kind="stable")
    ascending = values[order] - values.mean()
    below = np.arange(1, len(values))
    # The variance between the groups, to a factor, for every place to cut.
    between = np.cumsum(ascending)[:-1] ** 2 / (below * (len(values) - below))
    cut = int(np.argmax(between)) + 1 if len(below) else 0
    upper = np.zeros(len(values))
    upper[order[cut:]] = 1
    return np.stack([1 - upper, upper], axis=1)
