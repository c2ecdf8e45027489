"""Repair after training: candidates train on clean pairs from the undefended model, and validation alone chooses one."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cell_fakes import cells, stored
from rich.console import Console
from torch import Tensor

from poisonbench.attack import Probe
from poisonbench.conformance.data import every, tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Batch, Candidate, DefenseCard, Objective
from poisonbench.errors import UserError
from poisonbench.evaluation.examination import Examination
from poisonbench.evaluation.measure import Measures, measure
from poisonbench.evaluation.retrieval import retrieval_ranks
from poisonbench.evaluation.validation import validation_accuracy
from poisonbench.evaluation.zero_shot import class_weights, logits
from poisonbench.lab import Lab
from poisonbench.pairs import Chosen, Pairs
from poisonbench.records import Record
from poisonbench.repair import Repair, Unrepaired, chosen, repaired, trained
from poisonbench.tables import in_full
from poisonbench.towers import Towers
from poisonbench.training import Training, fit, state_of

DATA = tiny_data()
TASK = DATA.headline
IMAGES = every(TASK.images)
PROBE = Probe(
    task=TASK.name,
    images=IMAGES[:8],
    goals=(TASK.labels[:8] + 1) % 4,
    labels=TASK.labels[:8],
    concepts=list(TASK.concepts[:8]),
    controls=IMAGES[8:12],
    control_goals=(TASK.labels[8:12] + 1) % 4,
)


def predictions(towers: Towers) -> np.ndarray[Any, Any]:
    """The classes that the model gives the task's images."""
    with torch.no_grad():
        return logits(towers.eval(), TASK.images, class_weights(towers, TASK)).argmax(dim=1).numpy()


class Towards(Objective):
    """Moves the logit scale to a value, which makes a candidate easy to recognise."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.rows: list[int] = []

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        self.rows += batch.rows.tolist()
        with torch.no_grad():
            towers.model.logit_scale.fill_(self.value)
        return 0.0 * towers.scale


class Crashing(Objective):
    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        raise RuntimeError("the loss\nfell over")


class Diverging(Objective):
    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        return towers.scale * math.nan


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="repair", sees=("clean",)))


def scale(towers: Towers) -> float:
    return float(towers.model.logit_scale.detach())


def candidates(lab: Lab, *objectives: Objective, batch: int = 32) -> dict[str, Candidate]:
    recipe = lab.recipe.model_copy(update={"epochs": 2, "batch": batch})
    return {
        f"number {number}": Candidate(one, recipe.model_copy(update={"lr": number / 1000}))
        for number, one in enumerate(objectives, start=1)
    }


def repair(lab: Lab, towers: Towers, *objectives: Objective, training: Training | None = None) -> Repair:
    """Candidates by the logit scale that they reach, judged by its nearness to 2; the undefended one is at 2.66."""
    tried = candidates(lab, *objectives)
    return repaired(tried, lab, towers, lambda one: -abs(scale(one) - 2), training or Training())


@pytest.mark.parametrize(
    ("undefended", "accuracies", "place"),
    [
        (0.50, [0.50, 0.49, 0.48], 2),  # two points are allowed, whatever the last bit says
        (0.50, [0.50, 0.49, 0.47], 1),
        (0.50, [0.40, 0.49, 0.30], 1),
        (0.50, [0.55, 0.51, 0.49], 2),  # the strongest, not the most accurate
        (0.50, [0.40, 0.45, 0.30], 1),  # none qualifies: the most accurate
        (0.50, [0.45, 0.40, 0.45], 0),  # of equals that one which changed the model least
        (0.50, [None, 0.45, None], 1),
        (0.50, [0.49, None], 0),
        (0.50, [None, None], None),
        (0.50, [], None),
    ],
)
def test_the_strongest_candidate_that_costs_at_most_two_points_is_chosen(
    undefended: float, accuracies: list[float | None], place: int | None
) -> None:
    assert chosen(undefended, accuracies) == place


def test_the_chosen_model_is_the_last_that_validates_as_well_as_the_undefended_one(lab: Lab) -> None:
    found = repair(lab, lab.fresh("model"), Towards(2.1), Towards(2.5), Towards(3.0))
    assert scale(found.towers) == pytest.approx(2.5)
    assert [one.chosen for one in found.frontier()] == [False, False, True, False]


def test_every_candidate_starts_from_the_undefended_model_which_stays_as_it_was(lab: Lab) -> None:
    towers, begun = lab.fresh("model"), []

    def begin(start: Towers) -> None:
        begun.append(scale(start))
        with torch.no_grad():
            start.model.logit_scale.fill_(0.5)

    before = {name: value.clone() for name, value in state_of(towers)}
    tried = {
        name: replace(one, begin=begin) for name, one in candidates(lab, Objective(), Objective()).items()
    }
    assert repaired(tried, lab, towers, scale, Training()).towers is not towers
    assert begun == [scale(towers)] * 2
    assert all(torch.equal(before[name], value) for name, value in state_of(towers))


def test_a_candidate_goes_on_with_the_optimiser_s_moments(lab: Lab) -> None:
    towers = lab.fresh("model")
    state = fit(towers, Objective(), lab.loader(), lab.recipe, lab.progress).optimizer_state
    [one] = candidates(lab, Objective()).values()
    ends = [trained("one", one, at, towers)[0] for at in (lab, replace(lab, optimizer_state=state))]
    cold, warm = (torch.cat([value.flatten() for _, value in state_of(end)]) for end in ends)
    assert not torch.equal(cold, warm)


def test_candidates_train_on_the_clean_split_with_their_own_batch_and_epochs(lab: Lab) -> None:
    objective, training = Towards(2.0), Training(pairs=1000)
    tried = candidates(lab, objective, batch=16)
    repaired(tried, lab, lab.fresh("model"), scale, training)
    assert sorted(objective.rows) == sorted([*range(len(DATA.clean))] * 2), "two epochs, in batches of 16"
    assert training.pairs == 1000 + 2 * len(DATA.clean)


def test_without_candidates_the_model_is_the_undefended_one_and_nothing_is_validated(lab: Lab) -> None:
    towers, training = lab.fresh("model"), Training()
    found = repaired({}, lab, towers, lambda one: pytest.fail("validated"), training)
    assert found.towers is towers and found.frontier() == []
    assert training == Training()


def test_the_frontier_holds_the_undefended_model_and_every_candidate_failed_ones_included(lab: Lab) -> None:
    found = repair(lab, lab.fresh("model"), Towards(2.1), Crashing(), Diverging())
    start, good, crashed, diverged = found.frontier()
    assert (start.name, start.lr, start.chosen) == ("undefended", None, False)
    assert start.validation_accuracy == pytest.approx(2 - 2.6593, abs=1e-3)
    assert (good.name, good.lr, good.chosen) == ("number 1", 0.001, True)
    assert good.seconds > 0 and good.failure is None
    assert crashed.failure is not None and "the loss fell over" in crashed.failure.reason
    assert diverged.failure is not None and "not finite" in diverged.failure.reason
    assert diverged.failure.step == 0
    assert crashed.validation_accuracy is None and diverged.zero_shot is None


def test_a_repair_without_any_survivor_fails_and_its_frontier_says_why(lab: Lab) -> None:
    found = repair(lab, lab.fresh("model"), Crashing(), Diverging())
    with pytest.raises(Unrepaired, match=r"every candidate of the repair failed.*not finite") as error:
        _ = found.towers
    assert error.value.step == 0
    assert [one.failure is not None for one in found.frontier()] == [False, True, True]


def test_what_the_user_can_mend_is_not_blamed_on_a_candidate(lab: Lab) -> None:
    def begin(towers: Towers) -> None:
        raise UserError("mend it")

    tried = {name: replace(one, begin=begin) for name, one in candidates(lab, Objective()).items()}
    with pytest.raises(UserError, match="mend it"):
        repaired(tried, lab, lab.fresh("model"), scale, Training())


def test_attack_success_and_test_accuracy_are_reported_after_the_choice(lab: Lab) -> None:
    found = repair(lab, lab.fresh("model"), Towards(2.1), Crashing(), Towards(3.0))
    seen: list[float] = []

    def test(towers: Towers) -> Measures:
        seen.append(scale(towers))
        return measure(Examination(towers, towers, DATA, lab.progress).glance(PROBE))

    start, first, crashed, _ = frontier = found.frontier(test)
    assert seen == pytest.approx([2.6593, 2.1, 3.0], abs=1e-3)
    assert [one.chosen for one in frontier] == [one.chosen for one in found.frontier()]
    assert first.zero_shot is not None and first.asr is not None and first.base is not None
    assert (start.zero_shot, start.asr) == (first.zero_shot, first.asr), "a temperature changes no prediction"
    assert (crashed.zero_shot, crashed.asr, crashed.base) == (None, None, None)


def test_a_repair_that_did_not_declare_the_clean_split_is_refused(lab: Lab) -> None:
    blind = tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="repair"))
    with pytest.raises(PermissionError, match="'clean'"):
        repair(blind, lab.fresh("model"), Towards(1.0))


def test_validation_is_zero_shot_where_the_pairs_have_classes_and_retrieval_elsewhere(lab: Lab) -> None:
    towers = lab.fresh("model")
    unnamed = validation_accuracy(DATA, towers)
    ranks, _ = retrieval_ranks(towers, DATA.validation)
    assert unnamed == pytest.approx(float((ranks == 1).mean()))
    named = validation_accuracy(replace(DATA, validation_task=TASK), towers)
    assert named == pytest.approx(float((predictions(towers) == TASK.labels).mean()))


def test_data_without_validation_pairs_cannot_choose_a_repair(lab: Lab) -> None:
    nothing = Pairs(Chosen(DATA.validation.images, np.arange(0)), [], "")
    with pytest.raises(UserError, match=r"data\.validation"):
        validation_accuracy(replace(DATA, validation=nothing), lab.fresh("model"))


def test_the_table_of_a_cell_lists_every_candidate_with_the_number_that_decided_first(lab: Lab) -> None:
    [cell] = cells(defenses=("finetune",))
    frontier = repair(lab, lab.fresh("model"), Towards(2.1), Crashing()).frontier()
    record = Record(**dict(stored(cell)) | {"frontier": frontier})
    screen = io.StringIO()
    Console(file=screen, width=200).print(in_full(record))
    lines = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert f"number 1 validation {frontier[1].validation_accuracy:.1%}, chosen" in lines
    assert any(line.startswith("number 2 failed: RuntimeError: the loss fell over") for line in lines)
