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
from poisonbench.training import make_batch, state_of

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


def test_a_period_or_pool_of_nothing_is_refused() -> None:
    for config in ({"every": 0}, {"pool": 0}, {"evry": 2}):
        with pytest.raises(UserError, match=r"every|pool"):
            RoCLIP(config)
