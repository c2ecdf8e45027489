"""A defence carried out once on the tiny data, with a witness of what its objective does in the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench import repair
from poisonbench.conformance.check import Plugin, once, require
from poisonbench.conformance.data import tiny_data
from poisonbench.defense import (
    Assignment,
    Batch,
    Curation,
    Defense,
    DefenseCard,
    Loss,
    Objective,
    Pass,
    Sight,
)
from poisonbench.lab import Lab
from poisonbench.randomness import Key, stable_seed
from poisonbench.slots import Checkpoints
from poisonbench.sources import Data
from poisonbench.tier import Recipe
from poisonbench.tokens import Tokenizer
from poisonbench.towers import Towers, build_towers

ALL_SIGHTS: tuple[Sight, ...] = get_args(Sight)
EPOCHS = 3
RECIPE = Recipe(epochs=EPOCHS, batch=32, precision="fp32")
MODEL = "poisonbench-xs"


@dataclass
class Notes:
    """What an objective did.

    Attributes:
        passes: the passes planned for every epoch.
        losses: the loss of every step.
        moved: the towers that a gradient reached.
        assignments: what it said of every epoch's captions, where it said anything.
        reports: what it said of every epoch.
    """

    passes: dict[int, Sequence[Pass]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    assignments: dict[int, Assignment] = field(default_factory=dict)
    reports: dict[int, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rehearsal:
    """What a defence did.

    Attributes:
        data: what it was given.
        defense: the instance.
        lab: its workplace, over the rows that it kept.
        curation: what it decided before training.
        objective: what it trained with.
        towers: the trained model.
        notes: what happened in the loop.
        crash: what ended the training early, if anything.
    """

    data: Data
    defense: Defense
    lab: Lab
    curation: Curation
    objective: Objective
    towers: Towers
    notes: Notes
    crash: Exception | None

    @property
    def distrusted(self) -> npt.NDArray[np.bool_]:
        """Which rows of the data were removed, or not trained on their own caption in the last epoch: (n,)."""
        found = np.ones(len(self.data.train), dtype=np.bool_)
        kept = np.arange(len(found)) if self.curation.keep is None else np.flatnonzero(self.curation.keep)
        last = self.notes.assignments.get(EPOCHS)
        found[kept] = False if last is None else last.partner != np.arange(len(kept))
        return found


def rehearse(plugin: Plugin, data: Data | None = None) -> Rehearsal:
    """Curate and train from scratch; a crash in the loop is kept, to judge what came before it."""
    data, defense = data or tiny_data(), plugin()
    lab = tiny_lab(data, plugin.card.model_copy(update={"sees": ALL_SIGHTS}))
    curation = defense.curate(lab.pairs, lab)
    lab = lab.on(curation.applied(lab.pairs))
    towers, notes = lab.fresh("model"), Notes()
    objective = watched(defense.objective(lab), towers, notes)
    crash = None
    try:
        lab.train(objective, start=towers)
    except Exception as error:
        crash = error
    return Rehearsal(data, defense, lab, curation, objective, towers, notes, crash)


rehearsed = once(rehearse)
"""The same, carried out once for all checks that only look."""


def trained(plugin: Plugin, rehearsal: Callable[[Plugin], Rehearsal] = rehearsed) -> Rehearsal:
    """A rehearsal that came to its end; raises what ended it early."""
    run = rehearsal(plugin)
    if run.crash is not None:
        raise run.crash
    return run


def later(plugin: Plugin, lab: Lab) -> Defense:
    """The defence in a process that finds its model trained: an instance that was asked for little."""
    defense: Defense = plugin()
    if not plugin.card.acts_on_a_model:
        defense.objective(lab)
    return defense


class Killed(BaseException):
    """Stands for the end of a process."""


def interrupted(plugin: Plugin) -> Rehearsal:
    """The rehearsal killed in the middle of the second and of the third epoch, each time taken up by a new objective."""
    whole = rehearsed(plugin)
    steps = len(whole.notes.losses)
    run = replace(whole, notes=Notes())
    with TemporaryDirectory() as folder:
        for last in (
            steps * (2 * EPOCHS - 3) // (2 * EPOCHS),
            steps * (2 * EPOCHS - 1) // (2 * EPOCHS),
            None,
        ):
            lab = replace(run.lab, checkpoints=Checkpoints(Path(folder), plugin.__name__, every=0))
            towers = lab.fresh("model")
            objective = watched(plugin().objective(lab), towers, run.notes, last)
            run = replace(run, objective=objective, towers=towers)
            try:
                lab.train(objective, start=towers)
            except Killed:
                continue
            except Exception as error:
                return replace(run, crash=error)
    return run


def repaired(plugin: Plugin, name: str, run: Rehearsal, deaths: Sequence[int] = ()) -> Towers:
    """The model after one of the defence's repairs, killed in the steps ``deaths`` and taken up each time."""
    with TemporaryDirectory() as folder:
        for last in (*deaths, None):
            lab = replace(run.lab, checkpoints=Checkpoints(Path(folder), name, every=0))
            candidate = later(plugin, lab).repair(lab)[name]
            objective = _mortal(candidate.objective, Notes(), last)
            recipe = candidate.recipe.model_copy(update={"epochs": EPOCHS})
            try:
                found, _ = repair.trained(
                    name, replace(candidate, objective=objective, recipe=recipe), lab, run.towers
                )
            except Killed:
                continue
    return found


def tiny_lab(data: Data, card: DefenseCard) -> Lab:
    """A lab over the tiny data with the smallest model."""
    task, splits = data.headline, (data.train, data.clean, data.validation)
    texts = [text for pairs in splits for options in pairs.captions for text in options]
    tokenizer = Tokenizer.trimmed_to([*texts, *task.classes, *task.templates], context=16)

    def fresh(key: Key) -> Towers:
        return build_towers(MODEL, tokenizer, seed=stable_seed("conformance", key), device="cpu", bf16=False)

    lab = Lab(
        pairs=data.train,
        validation=data.validation,
        recipe=RECIPE,
        tokenizer=tokenizer,
        synonyms=data.synonyms,
        seed=0,
        device="cpu",
        card=card,
        fresh=fresh,
        _clean=data.clean,
        _classes=(task.classes, task.templates),
    )
    return with_undefended(lab)


def with_undefended(lab: Lab) -> Lab:
    """The lab with an undefended model, which is trained when a defence asks for it."""
    return replace(lab, _undefended=lambda towers: lab.train(Objective(), start=towers))


def watched(objective: Objective, towers: Towers, notes: Notes, last: int | None = None) -> Objective:
    """The same objective, which from now on writes into ``notes`` what it does, and is killed in step ``last``."""
    finish = objective.finish

    def noted_finish(epoch: int) -> Mapping[str, float]:
        report, assignment = finish(epoch), objective.assignment()
        notes.reports[epoch] = report
        if assignment is not None:
            notes.assignments[epoch] = assignment
        return report

    objective.finish = noted_finish  # type: ignore[method-assign]
    for name, tower in (("image", towers.model.visual), ("text", towers.model.text)):
        for parameter in tower.parameters():
            parameter.register_hook(lambda gradient, name=name: _note_gradient(gradient, name, notes))
    return _mortal(objective, notes, last)


def _mortal(objective: Objective, notes: Notes, last: int | None) -> Objective:
    """The same objective, whose passes and losses are noted, and which is killed in step ``last``."""
    plan = objective.plan

    def noted_plan(epoch: int) -> Sequence[Pass]:
        notes.passes[epoch] = list(plan(epoch))
        return [replace(one, loss=_noted(one.loss, notes, last)) for one in notes.passes[epoch]]

    objective.plan = noted_plan  # type: ignore[method-assign]
    return objective


def _noted(loss: Loss, notes: Notes, last: int | None) -> Loss:
    def noted(batch: Batch, towers: Towers) -> Tensor:
        value = loss(batch, towers)
        if batch.step == last:
            raise Killed
        found = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        require(isinstance(value, Tensor) and value.ndim == 0, f"a loss must be a scalar tensor, not {found}")
        notes.losses.append(float(value.detach()))
        return value

    return noted


def _note_gradient(gradient: Tensor, tower: str, notes: Notes) -> None:
    if tower not in notes.moved and bool(torch.count_nonzero(gradient)):
        notes.moved.add(tower)
