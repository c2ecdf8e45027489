"""After training: a detector takes predictions back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from poisonbench.attack import Probe
from poisonbench.conformance.data import every, tiny_data
from poisonbench.defense import Screen
from poisonbench.evaluation.outputs import ABSENT, Outputs
from poisonbench.pairs import ArrayImages
from poisonbench.screening import scored, screened

DATA = tiny_data()
TASK = DATA.headline
EVEN, ODD = np.arange(0, 48, 2), np.arange(1, 48, 2)


def marked(images: Tensor) -> np.ndarray[Any, Any]:
    """1 for images whose first pixel was painted pure white, else 0."""
    return (images[:, :, 0, 0] == 255).all(dim=1).numpy().astype(float)


def white_corner(images: Tensor) -> Tensor:
    painted = images.clone()
    painted[:, :, 0, 0] = 255
    return painted


SCREEN = Screen(score=marked, threshold=0.5)
CLEAN = every(TASK.images)
PROBE = Probe(
    task=TASK.name,
    images=torch.cat([white_corner(CLEAN[:6]), CLEAN[6:8]]),
    goals=np.zeros(8, dtype=np.int64),
    labels=TASK.labels[:8],
    concepts=list(TASK.concepts[:8]),
    controls=torch.cat([CLEAN[:3], white_corner(CLEAN[3:4])]),
    control_goals=np.zeros(4, dtype=np.int64),
)


def predicted() -> Outputs:
    """Every input is said to be of class 2."""
    outputs = Outputs()
    for part, n in (("zero_shot", 48), ("attack", 8), ("control", 4), ("probe", 5)):
        outputs.add(part, TASK.name, index=np.arange(n), prediction=np.full(n, 2), top5=np.full((n, 1), 2))  # type: ignore[arg-type]
    return outputs


def test_every_image_has_one_score_whatever_the_batch() -> None:
    images = CLEAN.clone()
    images[ODD] = white_corner(images[ODD])
    for batch in (5, 48, 512):
        assert np.flatnonzero(scored(SCREEN, ArrayImages(images), batch)).tolist() == ODD.tolist()


def test_scores_above_the_threshold_are_flagged_and_all_are_kept() -> None:
    at_it = Screen(score=marked, threshold=1.0)
    outputs = screened(at_it, predicted(), DATA, PROBE)
    assert (outputs.block("attack").prediction == 2).all(), "a score at the threshold is not above it"
    assert outputs.block("attack").score.tolist() == [1.0] * 6 + [0.0] * 2
    assert outputs.block("control").score.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert outputs.block("zero_shot").score.tolist() == [0.0] * 48
    assert np.isnan(outputs.block("probe").score).all(), "nobody judged the linear probe's images"


def test_flagged_inputs_lose_their_prediction_and_the_others_keep_it() -> None:
    outputs = screened(SCREEN, predicted(), DATA, PROBE)
    attack, control = outputs.block("attack"), outputs.block("control")
    assert attack.prediction.tolist() == [ABSENT] * 6 + [2, 2]
    assert control.prediction.tolist() == [2, 2, 2, ABSENT]
    assert (attack.top5[:6] == ABSENT).all() and (attack.top5[6:, 0] == 2).all()


def test_flagged_test_images_count_as_errors_in_zero_shot_and_nowhere_else() -> None:
    everything = Screen(score=lambda images: np.ones(len(images)), threshold=0.5)
    outputs = screened(everything, predicted(), DATA, PROBE)
    assert (outputs.block("zero_shot").prediction == ABSENT).all()
    assert (outputs.block("probe").prediction == 2).all()
    nothing = screened(SCREEN, predicted(), DATA, None)
    for part in ("zero_shot", "attack", "control", "probe"):
        kept = nothing.block(part).prediction
        assert (kept == 2).all(), "no clean drawing has a white corner, and without a probe that is all"


def test_without_a_detector_outputs_stay_as_they_are() -> None:
    assert screened(None, predicted(), DATA, PROBE) == predicted()
