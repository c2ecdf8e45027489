"""A training run that can be taken up where it was left: all of its state, and when it is kept.

Random draws need no state: every generator is keyed by what it is for (see ``randomness``), and torch's own generator is
keyed anew for every step. Within an epoch two states of the objective are kept, that of the epoch's beginning, from
which ``plan`` gives the same passes again, and that of now.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from poisonbench.checkpoint import Saved
from poisonbench.defense import Objective, Pass
from poisonbench.optimizer import load_optimizer_state, optimizer_state
from poisonbench.progress import Progress
from poisonbench.settings import Settings
from poisonbench.slots import Slot
from poisonbench.towers import Towers


@dataclass
class Training:
    """What a run of the loop leaves besides the weights.

    Attributes:
        seconds: wall-clock time of the loop, in all processes.
        pairs: pairs that were given to losses, every pass counted.
        history: per epoch, mean loss and what the objective reports.
        optimizer_state: the optimiser's moments and step counts, by parameter.
    """

    seconds: float = 0.0
    pairs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    optimizer_state: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)


class Place(Settings, allow_inf_nan=True):
    """Where a run is and what it has seen.

    Attributes:
        epoch: that is under way, from 1.
        at: steps of it that are made.
        step: steps of the whole run that are made.
        losses: of the epoch's steps.
        seconds: see ``Training``.
        pairs: likewise.
        history: likewise.
    """

    epoch: int
    at: int
    step: int
    losses: list[float]
    seconds: float
    pairs: int
    history: list[dict[str, float]]


@dataclass
class Run:
    """Everything that changes from step to step; the attributes are those of ``Place``, and what the run is called."""

    towers: Towers
    objective: Objective
    optimizer: torch.optim.Optimizer
    called: str = "training"
    done: Training = field(default_factory=Training)
    epoch: int = 1
    at: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    _begun: dict[str, Tensor] = field(default_factory=dict)
    _left_at: dict[str, Tensor] | None = None

    def passes(self, kept: bool) -> list[Pass]:
        """The epoch's passes; in an epoch that was left midway the objective is then as it was when it was left.

        Args:
            kept: whether checkpoints may be made of the epoch, so that its beginning must be remembered.
        """
        self._begun = _copied(self.objective.state_dict()) if kept else {}
        passes = list(self.objective.plan(self.epoch))
        if self._left_at is not None:
            self.objective.load_state_dict(self._left_at)
            self._left_at = None
        return passes

    def advance(self, loss: float, pairs: int) -> None:
        """A step was made."""
        self.losses.append(loss)
        self.at, self.step, self.done.pairs = self.at + 1, self.step + 1, self.done.pairs + pairs

    def close(self, report: Mapping[str, float]) -> None:
        """The epoch is over."""
        self.done.history.append({name: float(value) for name, value in report.items()})
        self.epoch, self.at, self.losses = self.epoch + 1, 0, []

    def finished(self) -> Training:
        """What was done in all."""
        self.done.seconds = time.perf_counter() - self.started
        self.done.optimizer_state = optimizer_state(self.towers, self.optimizer)
        return self.done

    def state(self) -> Saved:
        """All of it as tensors and plain values."""
        parts = {
            "model": self.towers.model.state_dict(),
            "optimizer": optimizer_state(self.towers, self.optimizer),
            "objective": self.objective.state_dict(),
            "begun": self._begun if self.at else {},
        }
        place = Place(
            epoch=self.epoch, at=self.at, step=self.step, losses=self.losses,
            seconds=time.perf_counter() - self.started, pairs=self.done.pairs, history=self.done.history,
        )  # fmt: skip
        tensors = {f"{part}:{name}": value for part, state in parts.items() for name, value in state.items()}
        return Saved(tensors, place.model_dump())

    def restore(self, saved: Saved) -> None:
        """Go on from what ``state`` gave."""
        place = Place.model_validate(saved.state)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "objective": {}, "begun": {}}
        for path, value in saved.tensors.items():
            part, _, name = path.partition(":")
            parts[part][name] = value
        self.towers.model.load_state_dict(parts["model"])
        load_optimizer_state(self.towers, self.optimizer, parts["optimizer"])
        midway = place.at > 0
        now = parts["objective"]
        begun = {
            name: value.to(now[name].device) if name in now else value
            for name, value in parts["begun"].items()
        }
        self.objective.load_state_dict(begun if midway else now)
        self._left_at = now if midway else None
        self.epoch, self.at, self.step, self.losses = place.epoch, place.at, place.step, list(place.losses)
        self.done = Training(place.seconds, place.pairs, list(place.history))
        self.started = time.perf_counter() - place.seconds


class Keeper:
    """Keeps checkpoints of a run: after every epoch, and within one after so many seconds."""

    def __init__(self, run: Run, slot: Slot | None, about: str) -> None:
        self._run, self._slot, self._about = run, slot, about
        self._kept = time.monotonic()

    @property
    def keeps(self) -> bool:
        """Whether there is a slot to keep anything in."""
        return self._slot is not None

    def resume(self, progress: Progress) -> None:
        """Take the run up where its last good checkpoint left it, if there is one."""
        saved = self._slot.load(self._about, progress.note) if self._slot else None
        if saved is not None:
            self._run.restore(saved)
            progress.note(f"continued from a checkpoint: epoch {self._run.epoch}, step {self._run.step}")

    def keep_if_due(self) -> None:
        """Keep a checkpoint if the last one is old enough."""
        if self._slot and time.monotonic() - self._kept >= self._slot.cell.every:
            self.keep()

    def keep(self) -> None:
        """Keep a checkpoint."""
        if self._slot:
            self._slot.save(*self._run.state(), about=self._about)
            self._kept = time.monotonic()


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU: a pool may fill much of a GPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
