"""The rules that an attack's probe keeps, checked before anything is spent on it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from poisonbench.attack import Probe, Queries
from poisonbench.errors import UserError, did_you_mean
from poisonbench.tasks import Task


def check_probe(probe: Probe, tasks: Iterable[Task]) -> None:
    """Refuse a probe whose numbers would be wrong or missing.

    Raises:
        UserError: if it names no task, lacks images or controls, has columns of different lengths, a goal
            that is no class of the task, or an image whose true class is its goal.
    """
    known = {task.name: task for task in tasks}
    if probe.task not in known:
        raise UserError(f"the attack's probe names task '{probe.task}'; {did_you_mean(probe.task, known)}")
    if len(probe.images) == 0 or len(probe.controls) == 0:
        raise UserError("the attack's probe needs at least one attacked image and one control")
    n, m = len(probe.images), len(probe.controls)
    if {len(probe.goals), len(probe.labels), len(probe.concepts)} != {n} or len(probe.control_goals) != m:
        raise UserError(
            f"the attack's probe needs one goal, label and concept for each of {n} images and {m} controls"
        )
    for goals in (probe.goals, probe.control_goals):
        _check_goals(goals, known[probe.task])
    if probe.queries is not None:
        check_queries(probe.queries)
    own = int(np.sum(probe.goals == probe.labels))
    if own:
        raise UserError(f"the attack's probe has {own} images whose true class is the goal: leave them out")


def check_queries(queries: Queries) -> None:
    """Refuse searches that cannot be counted.

    Raises:
        UserError: if columns have different lengths or are empty, or a group is looked for that no picture has.
    """
    sizes = (
        (len(queries.groups), len(queries.gallery), "gallery"),
        (len(queries.goals), len(queries.captions), "captions"),
        (len(queries.control_goals), len(queries.controls), "controls"),
    )
    for given, wanted, name in sizes:
        if given != wanted or not wanted:
            raise UserError(f"the attack's queries have {given} groups or goals for {wanted} {name}")
    lost = set(queries.goals.tolist() + queries.control_goals.tolist()) - set(queries.groups.tolist())
    if lost:
        raise UserError(f"the attack's queries look for group {min(lost)}, which no picture of theirs has")


def _check_goals(goals: npt.NDArray[np.int64], task: Task) -> None:
    last = len(task.classes) - 1
    wrong = goals[(goals < 0) | (goals > last)]
    if len(wrong):
        raise UserError(
            f"the attack's probe has goal {int(wrong[0])}; task '{task.name}' has classes 0 to {last}"
        )
