"""When SAFECLIP does what: its phases as shares of the run, whatever its length."""

from __future__ import annotations

from typing import Literal, NamedTuple

Phase = Literal["unimodal", "slow", "divided"]


class Phases(NamedTuple):
    """The epochs of a run, counted from 1.

    Attributes:
        unimodal: epochs of unimodal warm-up.
        slow: epochs of slow cross-modal training on all pairs, after which similarities mean something.
        total: epochs of the run; in the rest only safe pairs are trained across modalities.
    """

    unimodal: int
    slow: int
    total: int

    @classmethod
    def of(cls, unimodal: float, slow: float, total: int) -> Phases:
        """Phases from shares of ``total`` epochs, each at least one; a short run drops the first, then the last."""
        slowly = min(max(1, round(slow * total)), total)
        warming = max(1, round(unimodal * total)) if unimodal else 0
        return cls(max(0, min(warming, total - slowly - 1)), slowly, total)

    @property
    def divided(self) -> int:
        """Epochs in which the pairs are divided."""
        return self.total - self.unimodal - self.slow

    def at(self, epoch: int) -> Phase:
        """The phase of ``epoch``."""
        if epoch <= self.unimodal:
            return "unimodal"
        return "slow" if epoch <= self.unimodal + self.slow else "divided"

    def scored(self, epoch: int) -> bool:
        """Whether similarities are taken at the end of ``epoch``, for the division of the next."""
        return self.unimodal + self.slow <= epoch < self.total
