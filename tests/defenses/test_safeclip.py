"""SAFECLIP: unimodal first, then slowly all pairs, then across modalities only what is safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Batch, Objective, Pass
from poisonbench.defenses.safeclip import SAFECLIP
from poisonbench.defenses.safeclip.defense import SafeTraining
from poisonbench.defenses.safeclip.phases import Phases
from poisonbench.defenses.safeclip.rates import OfficialRates, PhaseRates, Rates
from poisonbench.errors import UserError
from poisonbench.lab import Lab
from poisonbench.losses import clip_loss
from poisonbench.tier import Recipe
from poisonbench.towers import Towers
from poisonbench.training import fit, make_batch, schedule, state_of

ROWS, BATCH, BANK = 160, 32, 64
RECIPE = Recipe(epochs=4, batch=BATCH, precision="fp32", lr=2e-3)
UNIMODAL, SLOW, DIVIDED = 1, 2, 3
"""Epochs of the three phases under the recipe."""


@pytest.fixture(scope="module")
def lab() -> Lab:
    lab = tiny_lab(tiny_data(), SAFECLIP.card)
    return Lab(**(vars(lab) | {"recipe": RECIPE}))


@pytest.fixture
def towers(lab: Lab) -> Towers:
    return lab.fresh("model")


def safeclip(lab: Lab, **config: Any) -> SafeTraining:
    objective = SAFECLIP({"bank": BANK, "images": "light", **config}).objective(lab)
    assert isinstance(objective, SafeTraining)
    return objective


def divided(objective: SafeTraining, safe: Sequence[int]) -> SafeTraining:
    """The same objective after a division that found the rows ``safe``."""
    objective.split.safe = torch.isin(torch.arange(ROWS), torch.tensor(safe))
    objective.split.first, objective.split.made = len(safe) / ROWS, 1
    return objective


def batch_of(lab: Lab, objective: Objective, rows: range = range(BATCH), epoch: int = DIVIDED) -> Batch:
    return make_batch(lab.loader(), objective, RECIPE, np.array(rows), epoch, 0, 0, 0.5)


def embedded(towers: Towers, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First and second images, first and second captions."""
    images = (towers.image(view).embedding for view in batch.images)
    texts = (towers.text(view).embedding for view in batch.tokens)
    return (*images, *texts)  # type: ignore[return-value]


def infonce(anchors: Tensor, partners: Tensor, towers: Towers) -> Tensor:
    return -F.log_softmax(towers.scale * anchors @ partners.T, dim=1).diagonal().mean()


def gradients(towers: Towers, loss: Tensor) -> Tensor:
    towers.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in towers.parameters() if p.grad is not None])


def stages(passes: Sequence[Pass]) -> list[tuple[Any, list[int]]]:
    """The losses of the passes in their order, each with the rows that it visits."""
    found: list[tuple[Any, list[int]]] = []
    for one in passes:
        if not found or found[-1][0] != one.loss:
            found.append((one.loss, []))
        assert one.rows is not None
        found[-1][1].extend(one.rows.tolist())
    return [(loss, sorted(rows)) for loss, rows in found]


def rates_of(passes: Sequence[Pass], epoch: int) -> list[float]:
    """The shares of the recipe's learning rate that the loop makes of the passes, one batch each."""
    shares = [(epoch - 1 + at / len(passes)) / RECIPE.epochs for at in range(len(passes))]
    return [one.lr_scale * schedule(share, RECIPE.warmup) for one, share in zip(passes, shares, strict=True)]


def weights(towers: Towers) -> Tensor:
    return torch.cat([value.flatten() for _, value in state_of(towers)])


def test_the_released_run_of_32_epochs_and_a_short_one_have_the_same_phases_in_proportion() -> None:
    config = SAFECLIP.Config()
    assert Phases.of(config.unimodal, config.slow, 32) == (5, 1, 32)
    assert Phases.of(config.unimodal, config.slow, 9) == (1, 1, 9)
    assert Phases.of(config.unimodal, config.slow, 2) == (0, 1, 2)
    assert Phases.of(0, config.slow, 9) == (0, 1, 9)


@given(st.floats(0, 0.99), st.floats(0.01, 0.99), st.integers(1, 60))
def test_every_epoch_has_a_phase_and_pairs_are_scored_before_every_division(
    unimodal: float, slow: float, epochs: int
) -> None:
    phases = Phases.of(unimodal, slow, epochs)
    names = [phases.at(epoch) for epoch in range(1, epochs + 1)]
    assert "slow" in names
    assert names == sorted(names, key=["unimodal", "slow", "divided"].index)
    assert [phases.scored(e - 1) for e in range(2, epochs + 1)] == [name == "divided" for name in names[1:]]


def test_each_phase_plans_its_passes(lab: Lab) -> None:
    objective, everyone = safeclip(lab), list(range(ROWS))
    assert stages(objective.plan(UNIMODAL)) == [(objective.unimodal, everyone)]
    assert stages(objective.plan(SLOW)) == [(objective.crossed, everyone), (objective.score, everyone)]


def test_in_divided_epochs_risky_rows_stay_unimodal_and_safe_rows_are_crossed(lab: Lab) -> None:
    objective, everyone = divided(safeclip(lab), range(96)), list(range(ROWS))
    training = [(objective.unimodal, everyone[96:]), (objective.crossed, everyone[:96])]
    passes = objective.plan(DIVIDED)
    assert stages(passes) == [*training, (objective.score, everyone)]
    assert [one.train for one in passes] == [True] * 5 + [False] * 5
    assert stages(objective.plan(RECIPE.epochs)) == training, "nothing follows that would need scores"


def test_all_pairs_are_scored_and_training_batches_are_full(lab: Lab) -> None:
    objective = divided(safeclip(lab), range(100))
    alone, crossed, scored = stages(objective.plan(DIVIDED))
    assert (len(alone[1]), len(crossed[1]), len(scored[1])) == (BATCH, 3 * BATCH, ROWS)


@pytest.mark.parametrize("safe", [0, ROWS], ids=["none", "all"])
def test_a_division_may_find_all_or_nothing_safe(lab: Lab, towers: Towers, safe: int) -> None:
    objective = divided(safeclip(lab), range(safe))
    passes = objective.plan(RECIPE.epochs)
    loss = objective.crossed if safe else objective.unimodal
    assert stages(passes) == [(loss, list(range(ROWS)))]
    assert torch.isfinite(loss(batch_of(lab, objective), towers))
    assert np.isfinite([one.lr_scale for one in passes]).all()


def test_an_all_safe_division_is_clip_with_crossed_augmented_views(lab: Lab, towers: Towers) -> None:
    objective = divided(safeclip(lab), range(ROWS))
    batch = batch_of(lab, objective)
    image, other_image, text, other_text = embedded(towers, batch)
    assert not torch.equal(batch.images[0], batch.images[1])
    expected = (infonce(image, other_text, towers) + infonce(text, other_image, towers)) / 2
    found = objective.plan(RECIPE.epochs)[0].loss(batch, towers)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(towers, found), gradients(towers, expected))


class Crossed(Objective):
    """CLIP on crossed views, written down without SAFECLIP but for its learning rates."""

    views, images, texts = 2, "light", "eda"

    def __init__(self, passes: Sequence[Pass]) -> None:
        self._passes = passes

    def plan(self, epoch: int) -> Sequence[Pass]:
        return [replace(one, loss=self.loss) for one in self._passes]

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        image, other_image, text, other_text = embedded(towers, batch)
        return (infonce(image, other_text, towers) + infonce(text, other_image, towers)) / 2


def test_an_epoch_with_an_all_safe_division_ends_where_clip_with_crossed_views_ends(lab: Lab) -> None:
    safe = divided(safeclip(lab), range(ROWS))
    passes, ends = safe.plan(RECIPE.epochs), []
    safe.plan = lambda epoch: passes  # type: ignore[method-assign]
    for objective in (Crossed(passes), safe):
        towers = lab.fresh("model")
        fit(towers, objective, lab.loader(), RECIPE.model_copy(update={"epochs": 1}), lab.progress)
        ends.append(weights(towers))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(ends[0], weights(lab.fresh("model")), atol=1e-3)


def test_without_augmentation_crossed_views_are_plain_clip(lab: Lab, towers: Towers) -> None:
    objective = safeclip(lab, images="none", texts="none")
    batch = batch_of(lab, objective)
    batch = Batch(**(vars(batch) | {"tokens": (batch.tokens[0], batch.tokens[0])}))
    image, text = towers.image(batch.images[0]).embedding, towers.text(batch.tokens[0]).embedding
    torch.testing.assert_close(objective.crossed(batch, towers), clip_loss(image, text, towers.scale))


def test_the_unimodal_loss_ranks_second_views_against_the_first_views_nearest_neighbours(
    lab: Lab, towers: Towers
) -> None:
    objective = safeclip(lab)
    objective.unimodal(batch_of(lab, objective, range(100, 100 + BATCH)), towers)
    before = {side: bank["embedding"].clone() for side, bank in objective.banks.items()}
    batch = batch_of(lab, objective)
    image, other_image, text, other_text = embedded(towers, batch)
    with torch.no_grad():
        image_near, text_near = (
            memory[(view @ memory.T).argmax(dim=1)]
            for memory, view in zip(before.values(), (image, text), strict=True)
        )
    expected = (infonce(other_image, image_near, towers) + infonce(other_text, text_near, towers)) / 2
    found = objective.unimodal(batch, towers)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(towers, found), gradients(towers, expected))


def test_the_unimodal_loss_knows_no_pairing(lab: Lab, towers: Towers) -> None:
    batch = batch_of(lab, safeclip(lab))
    swapped = Batch(**(vars(batch) | {"tokens": tuple(view.flip(0) for view in batch.tokens)}))
    found = [safeclip(lab).unimodal(one, towers) for one in (batch, swapped)]
    torch.testing.assert_close(found[0], found[1])


def test_the_scores_are_the_cosines_of_all_pairs_and_scoring_trains_nothing(lab: Lab) -> None:
    objective, towers = safeclip(lab, scoring="plain"), lab.fresh("model")
    before = weights(towers)
    scoring = [one for one in objective.plan(SLOW) if not one.train]
    objective.plan = lambda epoch: scoring  # type: ignore[method-assign]
    fit(towers, objective, lab.loader(), RECIPE.model_copy(update={"epochs": 1}), lab.progress)
    assert torch.equal(before, weights(towers))
    rows = np.arange(ROWS)
    image = lab.embed_images(towers, lab.pairs)
    with torch.no_grad():
        text = towers.text(lab.loader().tokens(rows, "none", 1)).embedding
    torch.testing.assert_close(objective.split.similarity, (image * text).sum(dim=1))


def test_rows_that_were_not_crossed_are_reported_as_left_out(lab: Lab) -> None:
    objective, own = divided(safeclip(lab), range(100)), list(range(ROWS))
    expected = {UNIMODAL: [-1] * ROWS, SLOW: own, DIVIDED: own[:100] + [-1] * 60}
    for epoch, partner in expected.items():
        objective.plan(epoch)
        assert objective.assignment().partner.tolist() == partner


def test_what_was_left_out_is_what_the_epoch_began_with(lab: Lab) -> None:
    objective = divided(safeclip(lab), range(100))
    objective.plan(DIVIDED)
    before = objective.assignment().partner
    report = objective.finish(DIVIDED)
    assert report["safe"] == pytest.approx(100 / ROWS)
    assert not np.array_equal(objective.split.safe.numpy(), before >= 0), "there is a new division already"
    assert np.array_equal(objective.assignment().partner, before)
    restored = safeclip(lab)
    restored.load_state_dict(objective.state_dict())
    assert np.array_equal(restored.assignment().partner, before)


def test_a_run_reports_its_divisions_and_the_safe_set_grows(lab: Lab) -> None:
    history = fit(lab.fresh("model"), safeclip(lab), lab.loader(), RECIPE, lab.progress).history
    safe = [epoch["safe"] for epoch in history]
    assert safe[:2] == [0, 1]
    assert safe[3] > safe[2] or safe[3] == pytest.approx(SAFECLIP.Config().cap, abs=0.01)
    for epoch, divides in zip(history, (False, True, True, False), strict=True):
        assert ("posterior_against_similarity" in epoch) == divides
    assert [epoch["safe_next"] for epoch in history[1:3]] == safe[2:]


def test_a_run_resumed_in_the_middle_of_an_epoch_goes_on_as_it_would_have(lab: Lab, towers: Towers) -> None:
    first, resumed = divided(safeclip(lab), range(100)), safeclip(lab)
    towers.eval()
    first.plan(DIVIDED)
    first.unimodal(batch_of(lab, first, range(100, 132)), towers)
    first.score(batch_of(lab, first, range(100)), towers)
    resumed.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for a, b in zip(first.plan(DIVIDED), resumed.plan(DIVIDED), strict=True):
        assert a.lr_scale == b.lr_scale and np.array_equal(a.rows, b.rows)
    losses = []
    for one in (first, resumed):
        losses.append(one.unimodal(batch_of(lab, one, range(128, 160)), towers))
        one.score(batch_of(lab, one, range(100, ROWS)), towers)
    assert torch.equal(*losses)
    assert first.finish(DIVIDED) == resumed.finish(DIVIDED)
    again = resumed.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.state_dict().items())


RELEASED = OfficialRates(
    Phases(unimodal=5, slow=1, total=32), warmup=10_000, batches=1953, slow=0.01, first=0.15, growth=0.01
)
"""CC1M in batches of 512, as in the notes on the released code."""


def test_the_official_rates_are_those_of_the_released_step_counters() -> None:
    warming = [RELEASED.of("unimodal", epoch, 1953) for epoch in (1, 4, 5)]
    assert warming[0](0) == pytest.approx(0.20, abs=0.005)
    assert warming[1](1952) == pytest.approx(0.98, abs=0.005)
    assert warming[2](0) == pytest.approx(0.98, abs=0.005)
    assert warming[2](1952) == pytest.approx(0, abs=0.005)
    assert RELEASED.of("crossed", 6, 1953)(7) == 0.01
    noted = {7: 0.38, 10: 0.54, 14: 0.75, 18: 0.97, 22: 0.57, 24: 0.17, 26: 0, 28: 0.17, 30: 0.56}
    found = {epoch: RELEASED.of("crossed", epoch, 300)(0) for epoch in noted}
    assert found == pytest.approx(noted, abs=0.01)
    assert RELEASED.of("crossed", 32, 780)(779) == pytest.approx(0.99, abs=0.015), "back at the peak"


def test_the_official_unimodal_rate_returns_after_twice_the_cosine_s_length() -> None:
    length, period = 1660, round(2 * (7.15 * 1953 - 10_000))
    rate = RELEASED.of("unimodal", 20, length)
    assert rate(0) == pytest.approx(rate(period), abs=0.001)
    assert rate(0) != pytest.approx(rate(period // 2), abs=0.1)


@pytest.mark.parametrize("official", [False, True])
def test_the_rates_reach_the_optimiser_step_by_step(lab: Lab, official: bool) -> None:
    objective = divided(safeclip(lab, official_lr=official, official_warmup=8), range(100))
    passes = objective.plan(DIVIDED)
    found = rates_of(passes, DIVIDED)[:4]
    rates: Rates = objective._rates
    crossed = rates.of("crossed", DIVIDED, 3)
    assert found == pytest.approx([rates.of("unimodal", DIVIDED, 1)(0), *(crossed(at) for at in range(3))])
    assert all(rate > 0 for rate in found)


def test_the_slow_phase_is_slow_throughout(lab: Lab) -> None:
    passes = safeclip(lab, slow_lr=0.02).plan(SLOW)
    assert rates_of(passes, SLOW)[:5] == pytest.approx([0.02] * 5)


def test_every_phase_has_a_rise_and_a_cosine_to_zero_over_its_own_steps() -> None:
    shares = (0.1, 0.2, 0.4)
    rates = PhaseRates(Phases(unimodal=2, slow=1, total=6), warmup=0.1, slow=0.05, shares=shares)
    alone = [rates.of("unimodal", epoch, 100)(at) for epoch in (1, 2) for at in range(100)]
    assert alone == pytest.approx([schedule(at / 200, 0.1) for at in range(200)])
    lengths = dict(zip((4, 5, 6), (100, 200, 400), strict=True))
    crossed = [
        rates.of("crossed", epoch, lengths[epoch])(at) for epoch in lengths for at in range(lengths[epoch])
    ]
    assert crossed == pytest.approx([schedule(at / 700, 0.1) for at in range(700)])
    risky = [rates.of("unimodal", epoch, 1000 - lengths[epoch])(0) for epoch in lengths]
    assert risky == pytest.approx([schedule(at / 2300, 0.1) for at in (0, 900, 1700)])


def test_official_rates_train(lab: Lab) -> None:
    objective = safeclip(lab, official_lr=True, official_warmup=8)
    towers = lab.fresh("model")
    training = fit(towers, objective, lab.loader(), RECIPE, lab.progress)
    assert all(np.isfinite(epoch["loss"]) for epoch in training.history)
    assert bool(weights(towers).isfinite().all())


@pytest.mark.parametrize(
    "config", [{"slow": 0}, {"cap": 0}, {"bank": 0}, {"ranking": "random"}, {"unimodel": 0}]
)
def test_nonsense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(config))):
        SAFECLIP(config)
