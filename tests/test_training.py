"""The training loop: it learns, it repeats itself bit for bit, and it stops where a loss is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Batch, DefenseCard, Objective, Pass
from poisonbench.lab import Lab
from poisonbench.tier import Recipe
from poisonbench.towers import MAX_SCALE, Towers
from poisonbench.training import Diverged, Training, adamw, fit, schedule, state_of

RECIPE = Recipe(epochs=3, batch=32, precision="fp32", lr=2e-3)
STEPS = 5
"""Steps of an epoch: 160 rows in batches of 32."""


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), DefenseCard(title="test", paper="-", year=2026, track="none"))


class Watched(Objective):
    """Plain CLIP that remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        self.batches.append(batch)
        return super().loss(batch, towers)


class Drawing(Watched):
    """Draws from every generator that it can reach."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.rng = lab.rng("noise")

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        torch.rand(3, generator=self.rng)
        torch.rand(5, generator=batch.rng)
        torch.rand(7)
        np.random.default_rng().random(2)
        return super().loss(batch, towers)


def trained(lab: Lab, objective: Objective, recipe: Recipe = RECIPE) -> tuple[Towers, Training]:
    towers = lab.fresh("model")
    return towers, fit(towers, objective, lab.loader(), recipe, lab.progress)


def weights(towers: Towers) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state_of(towers)}


def same(first: Towers, second: Towers) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_loss_falls(lab: Lab) -> None:
    _, training = trained(lab, Objective(), RECIPE.model_copy(update={"epochs": 5}))
    losses = [epoch["loss"] for epoch in training.history]
    assert losses[0] > math.log(32) - 0.5, "at first no pair is known"
    assert losses[-1] < losses[0] - 0.3


def test_two_runs_end_in_the_same_weights_bit_for_bit(lab: Lab) -> None:
    (first, a), (second, b) = trained(lab, Objective()), trained(lab, Objective())
    assert same(first, second) and a.history == b.history
    assert not same(first, lab.fresh("model"))


def test_an_objective_that_draws_changes_neither_the_order_nor_the_views_nor_the_weights(lab: Lab) -> None:
    quiet, drawing = Watched(), Drawing(lab)
    (first, _), (second, _) = trained(lab, quiet), trained(lab, drawing)
    assert len(quiet.batches) == len(drawing.batches) == STEPS * RECIPE.epochs
    for a, b in zip(quiet.batches, drawing.batches, strict=True):
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.images[0], b.images[0]) and torch.equal(a.tokens[0], b.tokens[0])
    assert same(first, second)


def test_steps_are_counted_over_the_run_and_epochs_from_one(lab: Lab) -> None:
    objective = Watched()
    _, training = trained(lab, objective)
    assert [batch.step for batch in objective.batches] == list(range(STEPS * RECIPE.epochs))
    assert [batch.epoch for batch in objective.batches] == [1] * STEPS + [2] * STEPS + [3] * STEPS
    shares = [batch.progress for batch in objective.batches]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] < 1
    assert training.pairs == 160 * RECIPE.epochs


def test_an_objective_has_the_views_and_the_augmentation_that_it_asks_for(lab: Lab) -> None:
    objective = Watched()
    objective.views, objective.images = 2, "none"
    trained(lab, objective, RECIPE.model_copy(update={"epochs": 1}))
    batch = objective.batches[0]
    plain = lab.pairs.images.fetch(batch.rows.numpy()).float() / 255
    assert len(batch.images) == len(batch.tokens) == 2
    assert torch.equal(batch.images[0], plain) and torch.equal(batch.images[1], plain)


class Planned(Watched):
    """Scores all rows without training, then trains on a few."""

    def __init__(self) -> None:
        super().__init__()
        self.training: list[bool] = []

    def plan(self, epoch: int) -> Sequence[Pass]:
        scoring = Pass(self.loss, train=False, drop_last=False)
        return [
            scoring,
            Pass(self.loss, rows=np.arange(10), drop_last=False),
            Pass(self.loss, rows=np.array([], int)),
        ]

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        self.training.append(towers.training and torch.is_grad_enabled())
        return super().loss(batch, towers)


def test_passes_are_made_in_order_over_their_own_rows(lab: Lab) -> None:
    objective = Planned()
    trained(lab, objective, RECIPE.model_copy(update={"epochs": 1}))
    assert objective.training == [False] * STEPS + [True]
    assert sorted(objective.batches[-1].rows.tolist()) == list(range(10))


class OnlyScores(Objective):
    def plan(self, epoch: int) -> Sequence[Pass]:
        return [Pass(self.loss, train=False)]


def test_a_pass_without_training_leaves_every_weight_as_it_was(lab: Lab) -> None:
    towers, training = trained(lab, OnlyScores())
    assert same(towers, lab.fresh("model"))
    assert training.history[0]["loss"] > 0


class Breaks(Objective):
    """Its loss stops being a number at a step."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        return super().loss(batch, towers) * (self.value if batch.step == self.step else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_says_where(lab: Lab, value: float) -> None:
    with pytest.raises(Diverged, match=r"step 7 \(epoch 2\)") as stopped:
        trained(lab, Breaks(7, value))
    assert stopped.value.step == 7


def test_what_an_objective_and_the_caller_report_of_an_epoch_is_kept(lab: Lab) -> None:
    class Reports(Objective):
        def finish(self, epoch: int) -> dict[str, float]:
            return {"pool": 10.0 * epoch}

    towers, seen = lab.fresh("model"), []

    def on_epoch(epoch: int, objective: Objective) -> dict[str, float]:
        seen.append(epoch)
        return {"poison": 0.5}

    done = fit(towers, Reports(), lab.loader(), RECIPE, lab.progress, on_epoch)
    assert seen == [1, 2, 3]
    assert [(epoch["epoch"], epoch["pool"], epoch["poison"]) for epoch in done.history] == [
        (1, 10, 0.5),
        (2, 20, 0.5),
        (3, 30, 0.5),
    ]


def test_only_matrices_are_decayed_and_every_parameter_is_in_one_group(lab: Lab) -> None:
    towers = lab.fresh("model")
    decayed, plain = adamw(towers, RECIPE).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (RECIPE.weight_decay, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"]) and all(p.ndim < 2 for p in plain["params"])
    grouped = [id(p) for group in (decayed, plain) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in towers.parameters())
    assert id(towers.model.logit_scale) in {id(p) for p in plain["params"]}


def test_the_logit_scale_is_kept_between_one_and_a_hundred(lab: Lab) -> None:
    class Pushes(Objective):
        def __init__(self, sign: float) -> None:
            self.sign = sign

        def loss(self, batch: Batch, towers: Towers) -> Tensor:
            return self.sign * towers.scale.log()

    for sign, end in ((-1.0, math.log(MAX_SCALE)), (1.0, 0.0)):
        towers, _ = trained(lab, Pushes(sign), RECIPE.model_copy(update={"lr": 5.0}))
        assert towers.model.logit_scale.item() == pytest.approx(end)


warmups = st.floats(0.02, 0.5)


@settings(deadline=None)
@given(warmups)
def test_the_learning_rate_starts_and_ends_near_zero_and_peaks_at_the_end_of_the_warmup(
    warmup: float,
) -> None:
    assert 0 < schedule(0, warmup) < 0.05
    assert schedule(warmup, warmup) == pytest.approx(1)
    assert schedule(1 - 1e-3, warmup) == pytest.approx(0, abs=1e-4)


@settings(deadline=None)
@given(warmups, st.floats(0, 0.999), st.floats(0, 0.999))
def test_the_learning_rate_rises_during_the_warmup_and_falls_after_it(
    warmup: float, one: float, other: float
) -> None:
    early, late = sorted((one, other))
    assert 0 <= schedule(late, warmup) <= 1
    if late <= warmup:
        assert schedule(early, warmup) <= schedule(late, warmup)
    elif early >= warmup:
        assert schedule(early, warmup) >= schedule(late, warmup)


def test_without_a_warmup_the_rate_starts_at_its_peak() -> None:
    assert schedule(0, 0) == 1
