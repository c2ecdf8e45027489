"""The door to what a model is judged on: embedded tasks, a folder per class, or a clip-benchmark data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from poisonbench.errors import UserError
from poisonbench.progress import Progress
from poisonbench.sources.benchmark_sets import open_benchmark_set
from poisonbench.sources.class_folders import open_class_folders
from poisonbench.sources.embedded import open_clipart
from poisonbench.sources.evaluation_set import EvaluationSet

FORMS = "clipart, folder:PATH or clip-benchmark:NAME"


def open_evaluations(names: Sequence[str], side: int, progress: Progress) -> EvaluationSet:
    """All tasks of ``names`` in their order, so that the first is the headline.

    Targets come from the embedded art if it is among ``names``, else from the first folder that has enough.

    Raises:
        UserError: for an unknown name, no name at all, or data that cannot be read.
    """
    if not names:
        raise UserError(f"--eval is empty; give {FORMS}")
    opened: list[EvaluationSet] = []
    for name in names:
        spare = "clipart" not in names and not any(one.targets for one in opened)
        opened.append(_open(name, side, spare, progress))
    tasks = tuple(task for one in opened for task in one.tasks)
    _refuse_namesakes([task.name for task in tasks])
    return EvaluationSet(
        tasks=tasks,
        targets=next((one.targets for one in opened if one.targets), None),
        skipped=tuple(line for one in opened for line in one.skipped),
        fingerprint=hashlib.sha256(" ".join(one.fingerprint for one in opened).encode()).hexdigest()[:16],
    )


def _open(name: str, side: int, spare: bool, progress: Progress) -> EvaluationSet:
    kind, _, rest = name.partition(":")
    if name == "clipart":
        data = open_clipart(side, 0)
        return EvaluationSet(data.tasks, data.targets, (), data.fingerprint)
    if kind == "folder" and rest:
        return open_class_folders(rest, side, spare, progress)
    if kind == "clip-benchmark" and rest:
        return open_benchmark_set(rest, side, progress)
    raise UserError(f"unknown evaluation '{name}'; give {FORMS}")


def _refuse_namesakes(names: list[str]) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"--eval gives two tasks the name '{min(twice)}'; leave one out or rename its folder")
