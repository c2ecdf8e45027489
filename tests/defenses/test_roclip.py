"""RoCLIP: matching epochs pair images with a pool of captions; the other epochs are plain CLIP on augmented pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Batch, Defense, Objective
from poisonbench.defenses.augment_only import AugmentOnly
from poisonbench.defenses.roclip import Matching, RoCLIP
from poisonbench.errors import UserError
from poisonbench.lab import Lab
from poisonbench.losses import clip_loss
from poisonbench.towers import Towers
from poisonbench.training import fit, make_batch, state_of

POOL = 64
BATCH = 32


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), RoCLIP.card)


@pytest.fixture
def towers(lab: Lab) -> Towers:
    return lab.fresh("model")


def matching(lab: Lab, **config: Any) -> Matching:
    objective = RoCLIP({"pool": POOL, **config}).objective(lab)
    assert isinstance(objective, Matching)
    return objective


def batches(lab: Lab, objective: Objective, epoch: int) -> Iterator[Batch]:
    """The batches of one epoch, as the loop makes them."""
    objective.plan(epoch)
    for step, rows in enumerate(lab.loader().order(np.arange(len(lab.pairs)), epoch, 0, True)):
        yield make_batch(lab.loader(), objective, lab.recipe, rows, epoch, 0, step, 0.0)


def weights(lab: Lab, defense: Defense) -> Tensor:
    return torch.cat([value.flatten() for _, value in state_of(lab.train(defense.objective(lab)))])


def test_a_period_beyond_the_last_epoch_is_augmentation_only_bit_for_bit(lab: Lab) -> None:
    never = weights(lab, RoCLIP({"every": lab.recipe.epochs + 1, "pool": POOL}))
    assert torch.equal(never, weights(lab, AugmentOnly()))
    assert not torch.equal(never, weights(lab, RoCLIP({"every": 2, "pool": POOL})))


def test_only_every_kth_epoch_matches(lab: Lab, towers: Towers) -> None:
    objective = matching(lab, every=3)
    for epoch, matched in ((1, False), (2, False), (3, True), (4, False), (6, True)):
        for batch in batches(lab, objective, epoch):
            objective.loss(batch, towers)
        own = np.array_equal(objective.assignment().partner, np.arange(len(lab.pairs)))
        assert own != matched


def test_plain_epochs_leave_the_pool_alone(lab: Lab, towers: Towers) -> None:
    objective = matching(lab, every=2)
    batch = next(batches(lab, objective, 1))
    image, text = towers.image(batch.images[0]).embedding, towers.text(batch.tokens[0]).embedding
    assert torch.equal(objective.loss(batch, towers), clip_loss(image, text, towers.scale))
    assert len(objective.pool) == 0


def test_the_first_partners_are_noise_of_the_run_s_seed(lab: Lab, towers: Towers) -> None:
    pools = []
    for _ in range(2):
        objective = matching(lab, every=1)
        batch = next(batches(lab, objective, 1))
        objective.loss(batch, towers)
        assert (objective.assignment().partner[batch.rows] == -1).all()
        pools.append(objective.pool)
    first, again = (pool["embedding"] for pool in pools)
    assert torch.equal(first, again)
    assert first.shape == (POOL, 64)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(POOL))
    assert (pools[0]["row"] >= 0).sum() == BATCH, "the first batch replaced as much noise"


def test_the_text_tower_rests_in_matching_epochs_and_learns_in_the_others(lab: Lab, towers: Towers) -> None:
    objective = matching(lab, every=2)
    for epoch, learns in ((1, True), (2, False)):
        towers.zero_grad()
        for batch in batches(lab, objective, epoch):
            objective.loss(batch, towers).backward()
        moved = [p.grad is not None and bool(p.grad.any()) for p in towers.model.text.parameters()]
        assert any(moved) == learns
        assert any(p.grad is not None and bool(p.grad.any()) for p in towers.model.visual.parameters())


def test_a_matched_image_is_given_the_nearest_caption_of_the_pool_as_it_was_before_the_step(
    lab: Lab, towers: Towers
) -> None:
    objective = matching(lab, every=1)
    towers.eval()
    for batch in batches(lab, objective, 1):
        before = {name: value.clone() for name, value in objective.pool.state_dict().items()}
        loss = objective.loss(batch, towers)
        if batch.step == 0:
            continue
        image = towers.image(batch.images[0]).embedding
        nearest = (image @ before["store.embedding"].T).argmax(dim=1)
        partner = torch.from_numpy(objective.assignment().partner)[batch.rows]
        assert torch.equal(partner, before["store.row"][nearest])
        torch.testing.assert_close(loss, clip_loss(image, before["store.embedding"][nearest], towers.scale))


def test_the_assignment_names_rows_that_were_in_the_pool_or_noise(lab: Lab, towers: Towers) -> None:
    objective = matching(lab, every=1)
    seen: set[int] = {-1}
    for batch in batches(lab, objective, 1):
        objective.loss(batch, towers)
        assert set(objective.assignment().partner[batch.rows].tolist()) <= seen
        seen |= set(batch.rows.tolist())
    assert set(objective.pool["row"].tolist()) <= seen - {-1}, "by now the noise is gone"


def test_the_last_captions_stay_in_the_pool(lab: Lab, towers: Towers) -> None:
    objective = matching(lab, every=1)
    visited = []
    for batch in batches(lab, objective, 1):
        objective.loss(batch, towers)
        visited += batch.rows.tolist()
    assert sorted(objective.pool["row"].tolist()) == sorted(visited[-POOL:])
    assert not objective.pool["embedding"].requires_grad


def resting(lab: Lab, **config: Any) -> Tensor:
    """How far one matching epoch after a plain one moved every text parameter."""
    objective, towers = matching(lab, every=2, **config), lab.fresh("model")
    recipe, ends = lab.recipe.model_copy(update={"epochs": 2}), []

    def on_epoch(epoch: int, _: Objective) -> dict[str, float]:
        ends.append(torch.cat([p.detach().flatten().clone() for p in towers.model.text.parameters()]))
        return {}

    fit(towers, objective, lab.loader(), recipe, lab.progress, on_epoch)
    return (ends[1] - ends[0]).abs()


def test_in_matching_epochs_the_text_tower_drifts_on_or_is_frozen(lab: Lab) -> None:
    assert not resting(lab, text="freeze").any()
    assert (resting(lab, text="drift") > 0).float().mean() > 0.9
    assert (resting(lab) > 0).any(), "as in the released code by default"


def test_the_drift_is_in_the_optimiser_and_not_in_the_loss(lab: Lab, towers: Towers) -> None:
    losses = []
    for text in ("drift", "freeze"):
        objective = matching(lab, every=1, text=text)
        losses.append(objective.loss(next(batches(lab, objective, 1)), towers))
    assert torch.equal(*losses)


def test_every_epoch_reports_how_many_rows_were_matched_and_how_many_to_noise(
    lab: Lab, towers: Towers
) -> None:
    objective, reports = matching(lab, every=2), []
    for epoch in (1, 2, 3, 4):
        for batch in batches(lab, objective, epoch):
            objective.loss(batch, towers)
        reports.append(objective.finish(epoch))
    for plain in (reports[0], reports[2]):
        assert plain == {"rematched": 0, "matched_to_noise": 0}
    assert reports[1]["matched_to_noise"] >= BATCH / len(lab.pairs), "the first batch met nothing else"
    assert reports[3]["matched_to_noise"] == 0, "by now the noise is gone"
    assert 0.5 < reports[3]["rematched"] <= 1


def test_an_epoch_resumed_in_its_middle_remembers_the_partners_it_gave(lab: Lab, towers: Towers) -> None:
    first, resumed = matching(lab, every=1), matching(lab, every=1)
    half = [batch for batch in batches(lab, first, 1) if batch.step < 3]
    for batch in half:
        first.loss(batch, towers)
    given = first.assignment().partner
    resumed.load_state_dict(first.state_dict())
    resumed.plan(1)
    assert resumed.assignment().partner.tolist() == given.tolist()
    resumed.plan(2)
    assert resumed.assignment().partner.tolist() == list(range(len(lab.pairs)))


def test_an_assignment_that_was_given_away_does_not_change_later(lab: Lab, towers: Towers) -> None:
    objective = matching(lab, every=1)
    given = objective.assignment().partner
    for batch in batches(lab, objective, 1):
        objective.loss(batch, towers)
    assert given.tolist() == list(range(len(lab.pairs)))


def test_a_restored_pool_goes_on_with_the_same_partners(lab: Lab, towers: Towers) -> None:
    first, restored = matching(lab, every=1), matching(lab, every=1)
    for batch in batches(lab, first, 1):
        first.loss(batch, towers)
    restored.load_state_dict(first.state_dict())
    for objective in (first, restored):
        for batch in batches(lab, objective, 2):
            objective.loss(batch, towers)
    assert first.assignment().partner.tolist() == restored.assignment().partner.tolist()


def test_nonsense_is_refused() -> None:
    for config in ({"every": 0}, {"pool": 0}, {"evry": 2}, {"text": "thaw"}):
        with pytest.raises(UserError, match=r"every|pool|text"):
            RoCLIP(config)
