"""Learning rates that start anew with every phase, and those of the released code; see docs/defenses/safeclip.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from poisonbench.defense import Pass
from poisonbench.defenses.safeclip.phases import Phases
from poisonbench.lab import Lab
from poisonbench.training import schedule

Kind = Literal["unimodal", "crossed", "score"]
Rate = Callable[[int], float]
"""The share of the recipe's learning rate at a pass's step, counted from 0."""


class Rates(Protocol):
    """Learning rates of a run."""

    def of(self, kind: Kind, epoch: int, length: int) -> Rate:
        """The rate of a training pass of ``length`` steps in ``epoch``."""
        ...


@dataclass(frozen=True)
class PhaseRates:
    """A linear rise and a cosine to zero over each phase's own steps, counted apart for either loss.

    Attributes:
        phases: of the run.
        warmup: share of a phase's steps in which the rate rises.
        slow: the constant rate of the slow phase.
        shares: safe share of the pairs in every divided epoch.
    """

    phases: Phases
    warmup: float
    slow: float
    shares: tuple[float, ...]

    def of(self, kind: Kind, epoch: int, length: int) -> Rate:
        """See ``Rates``."""
        phase = self.phases.at(epoch)
        if phase == "slow":
            return lambda index: self.slow
        if phase == "unimodal":
            before, weights = epoch - 1, [1.0] * self.phases.unimodal
        else:
            before = epoch - self.phases.unimodal - self.phases.slow - 1
            weights = [share if kind == "crossed" else 1 - share for share in self.shares]
        done, here, total = sum(weights[:before]), weights[before], sum(weights) or 1.0
        return lambda index: schedule((done + here * index / length) / total, self.warmup)


@dataclass(frozen=True)
class OfficialRates:
    """As they come out of the released code's step counters: hardly what was meant, for the cosines rise again at the end.

    Attributes:
        phases: of the run.
        warmup: steps of linear rise (10,000 as released, whatever the run's length).
        batches: steps of an epoch over all pairs.
        slow: the constant rate of the slow phase.
        first: safe share of the pairs at the first division.
        growth: what it gains per epoch.
    """

    phases: Phases
    warmup: int
    batches: int
    slow: float
    first: float
    growth: float

    def of(self, kind: Kind, epoch: int, length: int) -> Rate:
        """See ``Rates``."""
        phase = self.phases.at(epoch)
        if phase == "slow":
            return lambda index: self.slow
        if phase == "unimodal":
            until_divided = self.batches * (self.phases.unimodal + self.phases.slow)
            return lambda index: self._cosine(epoch * length + index, until_divided)
        # The cross-modal counter jumps on by the phase's mean number of steps, the unimodal one by its own, which are more.
        stride = self._divided_steps / self.phases.divided if kind == "crossed" else length
        return lambda index: self._cosine(epoch * stride + index, self._divided_steps)

    @property
    def _divided_steps(self) -> float:
        """Steps over safe pairs in all divided epochs, as the released code expects them."""
        shares = (self.first + self.growth * epoch for epoch in range(self.phases.divided))
        return self.batches * sum(shares)

    def _cosine(self, step: float, total: float) -> float:
        if step < self.warmup:
            return step / self.warmup
        return (1 + math.cos(math.pi * (step - self.warmup) / max(1.0, total - self.warmup))) / 2


def step_by_step(passes: Mapping[Kind, Pass], rates: Rates, epoch: int, lab: Lab) -> list[Pass]:
    """The same passes cut into passes of one batch, since a pass has one rate and these rates change with every step.

    A rate is divided by the recipe's own schedule, with which the loop will multiply it.
    """
    loader, recipe, steps = lab.loader(), lab.recipe, []
    for stage, (kind, one) in enumerate(passes.items()):
        rows = np.arange(len(lab.pairs)) if one.rows is None else one.rows
        batches = loader.order(rows, epoch, stage, one.drop_last)
        rate = rates.of(kind, epoch, len(batches)) if one.train else lambda index: 0.0
        steps += [replace(one, rows=batch, lr_scale=rate(at)) for at, batch in enumerate(batches)]
    shares = [(epoch - 1 + at / len(steps)) / recipe.epochs for at in range(len(steps))]
    return [
        replace(step, lr_scale=step.lr_scale / schedule(share, recipe.warmup))
        for step, share in zip(steps, shares, strict=True)
    ]
