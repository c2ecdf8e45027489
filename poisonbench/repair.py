"""Repair after training: candidates train on clean pairs from the undefended model, and validation alone chooses one.

The order of things keeps the choice honest: ``repaired`` trains and validates every candidate and has chosen before
``Repair.frontier`` is told how to measure attack success and test accuracy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from poisonbench.defense import Candidate
from poisonbench.errors import UserError
from poisonbench.evaluation.measure import Measures
from poisonbench.failure import explained
from poisonbench.lab import Lab
from poisonbench.records import Failure, RepairCandidate
from poisonbench.towers import Towers
from poisonbench.training import Training, fit

UNDEFENDED = "undefended"
TOLERANCE = 0.02
"""What a repair may cost in validation accuracy."""


class Unrepaired(Exception):
    """No candidate came to its end; ``step`` is where the last one stopped, if it says so."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"every candidate of the repair failed; the last: {failure.reason}")
        self.step = failure.step


@dataclass(frozen=True)
class Attempt:
    """A candidate after its training.

    Attributes:
        entry: what the record says of it.
        towers: the repaired model, or None where it failed.
    """

    entry: RepairCandidate
    towers: Towers | None


@dataclass(frozen=True)
class Repair:
    """A model before and after its repair.

    Attributes:
        before: the undefended model.
        attempts: the undefended model and every candidate, weakest to strongest; empty where nothing is repaired.
    """

    before: Towers
    attempts: tuple[Attempt, ...] = ()

    @property
    def towers(self) -> Towers:
        """The chosen model; the undefended one where nothing is repaired.

        Raises:
            Unrepaired: if every candidate failed.
        """
        if not self.attempts:
            return self.before
        for attempt in self.attempts:
            if attempt.entry.chosen and attempt.towers is not None:
                return attempt.towers
        raise Unrepaired(self.attempts[-1].entry.failure or Failure(reason="there was none"))

    def frontier(self, test: Callable[[Towers], Measures] | None = None) -> list[RepairCandidate]:
        """Every model of the sweep for the record, with what ``test`` measures of it; too late to change the choice."""
        return [_reported(attempt, test) for attempt in self.attempts]


def repaired(
    candidates: Mapping[str, Candidate],
    lab: Lab,
    towers: Towers,
    validate: Callable[[Towers], float],
    training: Training,
) -> Repair:
    """Train every candidate on the clean split, validate it, and choose.

    Args:
        candidates: what ``Defense.repair`` gave, weakest to strongest.
        lab: gives the clean split, and the optimiser's moments of the undefended model.
        towers: the undefended model; not changed.
        validate: accuracy of a model on the validation split.
        training: receives the pairs that were trained on.

    Raises:
        PermissionError: if the defence did not declare that it uses the clean split.
    """
    if not candidates:
        return Repair(towers)
    before = validate(towers)
    lab.progress.note(f"repair: validation accuracy {before:.4f} undefended")
    start = Attempt(RepairCandidate(name=UNDEFENDED, validation_accuracy=before), towers)
    tried = [attempted(name, one, lab, towers, validate, training) for name, one in candidates.items()]
    place = chosen(before, [one.entry.validation_accuracy for one in tried])
    if place is not None:
        entry = tried[place].entry.model_copy(update={"chosen": True})
        tried[place] = Attempt(entry, tried[place].towers)
        lab.progress.note(f"repair: {entry.name} is chosen")
    return Repair(towers, (start, *tried))


def chosen(undefended: float, accuracies: Sequence[float | None]) -> int | None:
    """The place of the chosen candidate, from validation accuracies and nothing else.

    The last, hence strongest, that loses at most ``TOLERANCE`` against the undefended model; where none does, the most
    accurate, of equals the weakest; None where all failed (a failed candidate's accuracy is None).
    """
    finished = [(accuracy, place) for place, accuracy in enumerate(accuracies) if accuracy is not None]
    harmless = [place for accuracy, place in finished if undefended - accuracy <= TOLERANCE + 1e-9]
    if harmless:
        return harmless[-1]
    return max(finished, key=lambda one: one[0])[1] if finished else None


def attempted(
    name: str,
    candidate: Candidate,
    lab: Lab,
    towers: Towers,
    validate: Callable[[Towers], float],
    training: Training,
) -> Attempt:
    """One candidate, trained from a copy of ``towers`` and validated; a crash is an attempt that failed."""
    entry, started = RepairCandidate(name=name, lr=candidate.recipe.lr), time.perf_counter()
    try:
        model, run = trained(name, candidate, lab, towers)
        training.pairs += run.pairs
        accuracy = validate(model)
    except (UserError, OSError):
        raise  # no verdict on the candidate: the user can mend it, the author's card lacks a word, or the disk is full
    except Exception as error:
        failure = Failure(reason=explained(error), step=getattr(error, "step", None))
        lab.progress.note(f"repair: {name} failed: {failure.reason}")
        seconds = time.perf_counter() - started
        return Attempt(entry.model_copy(update={"failure": failure, "seconds": seconds}), None)
    lab.progress.note(f"repair: validation accuracy {accuracy:.4f} after {name}")
    measured = {"validation_accuracy": accuracy, "seconds": run.seconds}
    return Attempt(entry.model_copy(update=measured), model)


def trained(name: str, candidate: Candidate, lab: Lab, towers: Towers) -> tuple[Towers, Training]:
    """A copy of ``towers`` after the candidate's training on the clean split; the copy and what the loop did."""
    model = copy.deepcopy(towers)
    candidate.begin(model)
    run = fit(
        model, candidate.objective, lab.loader(lab.clean, candidate.recipe.batch), candidate.recipe, lab.progress,
        checkpoint=lab.checkpoints.within("repair").slot(name), optimizer_state=lab.optimizer_state,
        called=f"repair {name}",
    )  # fmt: skip
    model.zero_grad()  # every candidate is kept to the end, its gradients need not be
    return model, run


def _reported(attempt: Attempt, test: Callable[[Towers], Measures] | None) -> RepairCandidate:
    if test is None or attempt.towers is None:
        return attempt.entry
    found = test(attempt.towers)
    measured = {"zero_shot": next(shot.top1 for shot in found.zero_shot.values())}
    if found.asr:
        measured |= {"asr": found.asr.value, "base": found.asr.base}
    return attempt.entry.model_copy(update=measured)
