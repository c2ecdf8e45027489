"""After training: a detector takes predictions back, and of several repairs the best on validation is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from poisonbench.attack import Probe
from poisonbench.conformance.data import every, tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Batch, DefenseCard, Objective, Screen
from poisonbench.evaluation.outputs import ABSENT, Outputs
from poisonbench.lab import Lab
from poisonbench.pairs import ArrayImages
from poisonbench.repair import repaired
from poisonbench.screening import flagged, screened
from poisonbench.towers import Towers
from poisonbench.training import Training, state_of

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


def test_images_are_flagged_above_the_threshold_whatever_the_batch() -> None:
    images = CLEAN.clone()
    images[ODD] = white_corner(images[ODD])
    store = ArrayImages(images)
    for batch in (5, 48, 512):
        assert flagged(SCREEN, store, batch).tolist() == ODD.tolist()
    assert flagged(Screen(score=marked, threshold=1.0), store).tolist() == [], "a score at it is not above it"


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
    assert nothing == predicted(), "no clean drawing has a white corner, and without a probe that is all"


def test_without_a_detector_outputs_stay_as_they_are() -> None:
    assert screened(None, predicted(), DATA, PROBE) == predicted()


class Towards(Objective):
    """Moves the logit scale to a value, which makes a candidate easy to recognise."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.rows: set[int] = set()

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        self.rows |= set(batch.rows.tolist())
        with torch.no_grad():
            towers.model.logit_scale.fill_(self.value)
        return 0.0 * towers.scale


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="repair", sees=("clean",)))


def scale(towers: Towers) -> float:
    return float(towers.model.logit_scale.detach())


def repair(lab: Lab, towers: Towers, *values: float, training: Training | None = None) -> Towers:
    """Candidates that reach these scales, judged by their nearness to 2."""
    candidates = {f"to {value}": Towards(value) for value in values}
    return repaired(candidates, lab, towers, lambda one: -abs(scale(one) - 2), training or Training())


def test_the_candidate_that_validates_best_is_kept(lab: Lab) -> None:
    chosen = repair(lab, lab.fresh("model"), 1.0, 2.1, 3.0)
    assert scale(chosen) == pytest.approx(2.1)


def test_the_undefended_model_is_the_start_of_every_candidate_and_stays_as_it_was(lab: Lab) -> None:
    towers = lab.fresh("model")
    before = {name: value.clone() for name, value in state_of(towers)}
    chosen = repair(lab, towers, 1.0, 2.0)
    assert chosen is not towers
    assert all(torch.equal(before[name], value) for name, value in state_of(towers))


def test_without_candidates_the_model_is_the_undefended_one(lab: Lab) -> None:
    towers, training = lab.fresh("model"), Training()
    assert repair(lab, towers, training=training) is towers
    assert training == Training()


def test_candidates_train_on_the_clean_split_and_their_cost_and_accuracy_are_kept(lab: Lab) -> None:
    candidates, training = {"a": Towards(1.0), "b": Towards(2.0)}, Training(pairs=1000)
    repaired(candidates, lab, lab.fresh("model"), scale, training)
    assert candidates["a"].rows == candidates["b"].rows
    assert candidates["a"].rows <= set(range(len(DATA.clean)))
    assert training.pairs == 1000 + 2 * lab.recipe.epochs * lab.recipe.batch
    assert training.history == [
        {"repair_candidate": 0.0, "validation_accuracy": pytest.approx(1.0)},
        {"repair_candidate": 1.0, "validation_accuracy": pytest.approx(2.0)},
    ]


def test_a_repair_that_did_not_declare_the_clean_split_is_refused(lab: Lab) -> None:
    blind = tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="repair"))
    with pytest.raises(PermissionError, match="'clean'"):
        repair(blind, lab.fresh("model"), 1.0)
