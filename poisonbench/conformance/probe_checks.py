"""What an attack promises of its probe, the inputs that show whether it worked; every check is one promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poisonbench.attack import Probe, Queries
from poisonbench.conformance.attack_rehearsal import rehearsed
from poisonbench.conformance.check import Plugin, require
from poisonbench.conformance.data import every
from poisonbench.evaluation.attack_probe import check_queries
from poisonbench.sources import Data

SIDES = (32, 64)
"""Pixels per side at which attacks are rehearsed."""


def probe_shapes(plugin: Plugin) -> None:
    """The probe's images, goals, labels and concepts agree in number, and there are controls."""
    for side in SIDES:
        run = rehearsed(plugin, side=side)
        if (probe := run.probe) is None:
            continue
        n, m = len(probe.goals), len(probe.control_goals)
        require(n > 0, "the probe has no images")
        require(m > 0, "the probe has no controls: how often would the model give the goal anyway?")
        require_images(probe.images, n, side, "probe.images")
        require_images(probe.controls, m, side, "probe.controls")
        sizes = f"{n} goals, {len(probe.labels)} labels and {len(probe.concepts)} concepts"
        require(len(probe.labels) == len(probe.concepts) == n, f"the probe has {sizes}")


def searches(plugin: Plugin) -> None:
    """Its searches, if there are any, have a group for every picture and look for groups that pictures have."""
    probe = rehearsed(plugin).probe
    if probe is not None and probe.queries is not None:
        check_queries(probe.queries)


def goals_known(plugin: Plugin) -> None:
    """The probe asks for classes of the task that the manifest names as targets."""
    run = rehearsed(plugin)
    if (probe := run.probe) is None:
        return
    task = run.data.headline
    require(
        probe.task == task.name, f"probe.task is '{probe.task}', not the task that was given ({task.name})"
    )
    planted = {task.classes.index(edit.target) for edit in run.edits}
    for name, goals in (("goals", probe.goals), ("control_goals", probe.control_goals)):
        unknown = sorted(set(goals.tolist()) - planted)
        require(goals.dtype == np.int64, f"probe.{name} are {goals.dtype}, not int64 class indices")
        require(not unknown, f"probe.{name} holds classes {unknown}, which are the target of no edit")


def goal_excluded(plugin: Plugin) -> None:
    """No image, attacked or control, has the goal as its true class."""
    run = rehearsed(plugin)
    if (probe := run.probe) is None:
        return
    mend = "already show their goal; leave out images of the goal class"
    own = int((probe.labels == probe.goals).sum())
    require(own == 0, f"{own} probe images {mend}")
    truth, classes = _true_classes(run.data), run.data.headline.classes
    sides = (("probe images", probe.images, probe.goals), ("controls", probe.controls, probe.control_goals))
    for name, images, goals in sides:
        shown = [truth.get(_key(image)) for image in images]
        wrong = sum(kind == classes[goal] for kind, goal in zip(shown, goals, strict=True))
        require(wrong == 0, f"{wrong} {name} {mend}")


def triggered(plugin: Plugin) -> None:
    """Where poisons are painted on, every attacked image is, and the labels are the classes that its controls show."""
    run = rehearsed(plugin)
    if (probe := run.probe) is None or all(edit.operation is None for edit in run.edits):
        return
    truth, classes = _true_classes(run.data), run.data.headline.classes
    bare = sum(_key(image) in truth for image in probe.images)
    require(bare == 0, f"{bare} probe images are pictures without a trigger")
    if len(probe.images) == len(probe.controls):
        shown = [truth.get(_key(image), "") for image in probe.controls]
        known = Counter(classes.index(kind) if kind in classes else -1 for kind in shown)
        mend = "give the untriggered twins, and their labels from the task"
        require(
            Counter(probe.labels.tolist()) == known, f"probe.labels are not what its controls show; {mend}"
        )


def differing(one: Probe | None, other: Probe | None) -> list[str]:
    """The columns in which two probes are not the same."""
    if one is None or other is None:
        return []
    return [
        column.name
        for column in fields(Probe)
        if not _equal(getattr(one, column.name), getattr(other, column.name))
    ]


def _equal(one: Any, other: Any) -> bool:
    """Whether two columns hold the same; of searches, whether their columns do."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, Queries) and isinstance(other, Queries):
        columns = [column.name for column in fields(Queries) if column.name != "gallery"]
        return all(_equal(getattr(one, name), getattr(other, name)) for name in columns)
    return bool(one == other)


def require_images(images: Tensor, count: int, side: int, what: str) -> None:
    """Require uint8 images of shape (count, 3, side, side)."""
    shape, found = (count, 3, side, side), f"{images.dtype} of shape {tuple(images.shape)}"
    right = images.dtype == torch.uint8 and tuple(images.shape) == shape
    require(right, f"{what} are {found}, not torch.uint8 of shape {shape}")


def _true_classes(data: Data) -> dict[bytes, str]:
    """What every picture that an attack can take as a control truly shows."""
    assert data.targets is not None
    labels = [data.headline.classes[label] for label in data.headline.labels]
    kinds = [*labels, *data.targets.kinds]
    images = [*every(data.headline.images), *every(data.targets.images)]
    return {_key(image): kind for image, kind in zip(images, kinds, strict=True)}


def _key(image: Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()
