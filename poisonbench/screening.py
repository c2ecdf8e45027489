"""Screening at inference: flagged inputs get no prediction, so a flagged attack fails and a flagged clean input is an error."""

from __future__ import annotations

import numpy as np

from poisonbench.attack import Probe
from poisonbench.defense import Screen
from poisonbench.evaluation.outputs import Outputs
from poisonbench.pairs import ArrayImages, ImageStore, Rows
from poisonbench.sources import Data


def screened(screen: Screen | None, outputs: Outputs, data: Data, probe: Probe | None) -> Outputs:
    """``outputs`` with the predictions of flagged inputs taken back.

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
            outputs.abstain("zero_shot", task.name, flagged(screen, task.images))
    if probe is not None:
        outputs.abstain("attack", probe.task, flagged(screen, ArrayImages(probe.images)))
        outputs.abstain("control", probe.task, flagged(screen, ArrayImages(probe.controls)))
    return outputs


def flagged(screen: Screen, images: ImageStore, batch: int = 512) -> Rows:
    """The rows whose score is above the threshold."""
    scores = [
        screen.score(images.fetch(np.arange(at, min(at + batch, len(images)))))
        for at in range(0, len(images), batch)
    ]
    return np.flatnonzero(np.concatenate(scores) > screen.threshold).astype(np.int64)
