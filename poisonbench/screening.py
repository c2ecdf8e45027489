"""Screening at inference: flagged inputs get no prediction, so a flagged attack fails and a flagged clean input is an error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poisonbench.attack import Probe
from poisonbench.defense import Screen
from poisonbench.evaluation.outputs import Outputs, Part
from poisonbench.pairs import ArrayImages, ImageStore
from poisonbench.sources import Data


def screened(screen: Screen | None, outputs: Outputs, data: Data, probe: Probe | None) -> Outputs:
    """``outputs`` with the score of every input, and with the predictions of flagged ones taken back.

    Args:
        screen: the detector, or None for none.
        outputs: of the unscreened model.
        data: gives the clean inputs of every zero-shot task.
        probe: gives the attacked inputs and the controls.
    """
    if screen is None:
        return outputs
    for task in data.tasks:
        if "zero_shot" in task.kinds:
            _judge(screen, outputs, "zero_shot", task.name, task.images)
    if probe is not None:
        _judge(screen, outputs, "attack", probe.task, ArrayImages(probe.images))
        _judge(screen, outputs, "control", probe.task, ArrayImages(probe.controls))
    return outputs


def scored(screen: Screen, images: ImageStore, batch: int = 512) -> npt.NDArray[np.float64]:
    """The score of every image, (n,)."""
    scores = [
        screen.score(images.fetch(np.arange(at, min(at + batch, len(images)))))
        for at in range(0, len(images), batch)
    ]
    return np.concatenate(scores).astype(np.float64)


def _judge(screen: Screen, outputs: Outputs, part: Part, task: str, images: ImageStore) -> None:
    scores = scored(screen, images)
    outputs.judge(part, task, scores)
    outputs.abstain(part, task, np.flatnonzero(scores > screen.threshold))
