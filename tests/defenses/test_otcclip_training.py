"""OTCCLIP in the loop: whom it re-captions, what it remembers, and that every published form trains."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Batch, Objective
from poisonbench.defenses.otcclip import OTCCLIP
from poisonbench.defenses.otcclip.defense import Reassigning
from poisonbench.defenses.roclip import RoCLIP
from poisonbench.lab import Lab
from poisonbench.losses import clip_loss
from poisonbench.tier import Recipe
from poisonbench.towers import Towers
from poisonbench.training import Training, fit, make_batch, state_of

RECIPE = Recipe(epochs=2, batch=32, precision="fp32")
ROWS = 160
QUICK: dict[str, Any] = {"references": 4, "iterations": 3, "negatives": 2, "outlying": 0}
PLAIN_CLIP: dict[str, Any] = {
    "views": 1,
    "regions": 1,
    "recurring": 0,
    "inter": 0,
    "intra": 0,
    "images": "none",
    "texts": "none",
}
FORMS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no warm-up": {"warmup": 0},
    "a scout": {"outlying": 1, "crowds": (8,)},
    "all": {"reassign": "all"},
    "all, in every epoch": {"reassign": "all", "every": 1},
    "positive": {"form": "positive"},
    "intra": {"intra": 1},
    "POT": {"backend": "pot"},
    "weight 0": {"weight": 0, "warmup": 0},
    "beta 0": {"beta": 0, "warmup": 0},
    "a pool of few": {"pool": 8, "warmup": 0},
    "logarithms": {"eps": 0.02},
    "neighbours": {"neighbours": 5, "warmup": 0},
    "one view": {"views": 1},
    "three views": {"views": 3, "intra": 1},
    "whole images are judged": {"regions": 1, "warmup": 0},
    "shortlist": {"shortlist": 4, "warmup": 0},
    "three captions at once": {"candidates": 3, "warmup": 0},
    "entropic value": {"gradient": "envelope"},
    "all, positive, intra, POT": {"reassign": "all", "form": "positive", "intra": 1, "backend": "pot"},
}


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), OTCCLIP.card)


@pytest.fixture
def towers(lab: Lab) -> Towers:
    """A model in evaluation mode, in which a row's features do not depend on the batch."""
    return lab.fresh("model").eval()


def reassigning(lab: Lab, **config: Any) -> Reassigning:
    objective = OTCCLIP(QUICK | config).objective(lab)
    assert isinstance(objective, Reassigning)
    return objective


def trained(lab: Lab, objective: Objective) -> tuple[Towers, Training]:
    towers = lab.fresh("model")
    return towers, fit(towers, objective, lab.loader(), RECIPE, lab.progress)


def batch_of(lab: Lab, objective: Objective, rows: range, epoch: int = 1, share: float = 0.5) -> Batch:
    return make_batch(lab.loader(), objective, RECIPE, np.array(rows), epoch, 0, 0, share)


def first_captions(lab: Lab, rows: Iterable[int]) -> Tensor:
    return lab.tokenizer([lab.pairs.captions[row][0] for row in rows])


def fill(objective: Reassigning, lab: Lab, towers: Towers, rows: range, as_if: Tensor | None = None) -> None:
    """Fill the pool with the first captions of ``rows``, ``as_if`` their embeddings were these."""
    ids = first_captions(lab, rows)
    own = towers.text(ids)
    fields = {"tokens": own.tokens.bfloat16(), "mask": own.mask, "ids": ids, "row": torch.tensor(rows)}
    objective.captions.pool.push(embedding=own.embedding if as_if is None else as_if, **fields)


def near(towers: Towers, batch: Batch) -> Tensor:
    """Embeddings that differ little from those of the batch's images, in reverse, so that every image has its own match."""
    image = towers.image(batch.images[0]).embedding.detach().flip(0)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    return F.normalize(image + 1e-3 * image.std(dim=0) * noise, dim=1)


def condemn(objective: Reassigning, bad: Tensor, patch: pytest.MonkeyPatch) -> None:
    """Let the separation find the rows in ``bad`` suspicious and all others sound."""

    def verdict(rows: Tensor, own: Tensor, decoy: Tensor, level: float) -> tuple[Tensor, Tensor]:
        return ~torch.isin(rows, bad), torch.isin(rows, bad)

    patch.setattr(objective.judge.separation, "judge", verdict)


def test_without_transport_the_nearest_captions_by_cosine_are_chosen_as_in_roclip(
    lab: Lab, towers: Towers
) -> None:
    objective = reassigning(lab, beta=1, reassign="all", every=2, **PLAIN_CLIP)
    batch, pool = batch_of(lab, objective, range(32), epoch=2), range(60, 92)
    embedding = near(towers, batch)
    fill(objective, lab, towers, pool, as_if=embedding)
    roclip = RoCLIP({"every": 2, "pool": len(pool)}).objective(lab)
    roclip.pool.push(embedding=embedding, row=torch.tensor(pool))  # type: ignore[attr-defined]
    found = []
    for one in (objective, roclip):
        one.loss(batch, towers)
        assignment = one.assignment()
        assert assignment is not None
        found.append(assignment.partner)
    assert found[0].tolist() == found[1].tolist()
    nearest = (towers.image(batch.images[0]).embedding @ embedding.T).argmax(dim=1)
    assert found[0][:32].tolist() == torch.tensor(pool)[nearest].tolist()
    assert len(set(found[0][:32].tolist())) > 16
    assert found[0][32:].tolist() == list(range(32, ROWS)), "rows that were not visited keep their own"


def test_the_chosen_captions_are_trained_on(lab: Lab, towers: Towers) -> None:
    objective = reassigning(lab, beta=1, reassign="all", every=1, weight=1, **PLAIN_CLIP)
    batch, pool = batch_of(lab, objective, range(4)), range(60, 64)
    fill(objective, lab, towers, pool, as_if=near(towers, batch))
    loss = objective.loss(batch, towers)
    partner = objective.partner[:4]
    assert sorted(partner.tolist()) == list(pool)
    text = towers.text(first_captions(lab, partner.tolist()))
    expected = clip_loss(towers.image(batch.images[0]).embedding, text.embedding, towers.scale)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_weight_zero_leaves_suspicious_rows_out(
    lab: Lab, towers: Towers, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = reassigning(lab, weight=0, warmup=0, bystanders=False, **PLAIN_CLIP)
    batch, bad = batch_of(lab, objective, range(32)), torch.tensor([1, 5, 30])
    fill(objective, lab, towers, range(60, 110))
    condemn(objective, bad, monkeypatch)
    loss = objective.loss(batch, towers)
    sound = ~torch.isin(batch.rows, bad)
    image, text = towers.image(batch.images[0][sound]), towers.text(batch.tokens[0][sound])
    expected = clip_loss(image.embedding, text.embedding, towers.scale)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_bystanders_are_negatives_of_the_sound_captions_and_their_own_captions_are_nothing(
    lab: Lab, towers: Towers, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = reassigning(lab, weight=0, warmup=0, **PLAIN_CLIP)
    batch, bad = batch_of(lab, objective, range(32)), torch.tensor([1, 5, 30])
    condemn(objective, bad, monkeypatch)
    loss = objective.loss(batch, towers)
    image, text = towers.image(batch.images[0]).embedding, towers.text(batch.tokens[0]).embedding
    sound = (~torch.isin(batch.rows, bad)).nonzero().squeeze(1)
    logits, place = towers.scale * image @ text[sound].T, torch.arange(len(sound))
    to_text, to_image = F.cross_entropy(logits[sound], place), F.cross_entropy(logits.T, sound)
    assert loss.item() == pytest.approx((to_text + to_image).item() / 2, rel=1e-5)


def test_only_suspicious_rows_are_given_another_caption_and_theirs_stay_out_of_the_pool(
    lab: Lab, towers: Towers, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = reassigning(lab, warmup=0, **PLAIN_CLIP)
    batch, bad = batch_of(lab, objective, range(32)), torch.tensor([1, 5, 30])
    fill(objective, lab, towers, range(60, 110))
    condemn(objective, bad, monkeypatch)
    objective.loss(batch, towers)
    partner = objective.partner
    assert set(partner[bad].tolist()) <= set(range(60, 110)), "captions come from what was in the pool before"
    assert (partner != torch.arange(ROWS)).sum() == len(bad)
    assert sorted(objective.captions.pool["row"][50:].tolist()) == sorted(set(range(32)) - set(bad.tolist()))
    assert objective.finish(1)["sound"] == pytest.approx((32 - len(bad)) / ROWS)


def test_in_the_warmup_all_pairs_are_trusted(lab: Lab, towers: Towers) -> None:
    objective = reassigning(lab, warmup=0.2, **PLAIN_CLIP)
    fill(objective, lab, towers, range(60, 110))
    batch = batch_of(lab, objective, range(32), share=0.1)
    loss = objective.loss(batch, towers)
    image, text = towers.image(batch.images[0]), towers.text(batch.tokens[0])
    expected = clip_loss(image.embedding, text.embedding, towers.scale)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert objective.partner.tolist() == list(range(ROWS))
    assert objective.judge.separation.evidence.seen[:32].all(), "evidence is gathered all the same"


@pytest.mark.parametrize("config", [{"reassign": "all"}, {"reassign": "suspicious"}], ids=str)
def test_the_pool_is_filled_in_every_epoch(lab: Lab, config: dict[str, Any]) -> None:
    objective, sizes = reassigning(lab, pool=1000, **config), [0]

    def on_epoch(epoch: int, _: Objective) -> dict[str, float]:
        sizes.append(len(objective.captions))
        return {}

    fit(lab.fresh("model"), objective, lab.loader(), RECIPE, lab.progress, on_epoch)
    grown = [after - before for before, after in pairwise(sizes)]
    assert all(0 < count <= ROWS for count in grown)
    if config["reassign"] == "all":
        assert grown == [ROWS, ROWS], "those of matching epochs too"


def test_a_new_epoch_begins_with_everyones_own_caption(lab: Lab, towers: Towers) -> None:
    objective = reassigning(lab, reassign="all", every=1)
    fill(objective, lab, towers, range(60, 110))
    objective.loss(batch_of(lab, objective, range(32)), towers)
    before = objective.assignment().partner
    objective.plan(2)
    assert objective.assignment().partner.tolist() == list(range(ROWS))
    assert before.tolist() != list(range(ROWS)), "an assignment that was handed out stays as it was"


@pytest.mark.parametrize("config", [{"warmup": 0, "neighbours": 5}, {"reassign": "all", "intra": 1}], ids=str)
def test_two_runs_end_in_the_same_weights_bit_for_bit(lab: Lab, config: dict[str, Any]) -> None:
    objectives = [reassigning(lab, **config) for _ in range(2)]
    (first, a), (second, b) = (trained(lab, objective) for objective in objectives)
    weights, again = dict(state_of(first)), dict(state_of(second))
    assert a.history == b.history
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert torch.equal(objectives[0].partner, objectives[1].partner)
    assert (objectives[0].partner != torch.arange(ROWS)).any(), "captions were re-assigned"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains_with_finite_losses_and_names_rows_that_exist(lab: Lab, form: str) -> None:
    objective = reassigning(lab, **FORMS[form])
    towers, training = trained(lab, objective)
    assert all(math.isfinite(epoch["loss"]) and 0 <= epoch["sound"] <= 1 for epoch in training.history)
    assert all(value.isfinite().all() for _, value in state_of(towers))
    partner = objective.assignment().partner
    assert partner.shape == (ROWS,) and partner.dtype == np.int64
    assert ((partner >= -1) & (partner < ROWS)).all()


@pytest.mark.parametrize(
    "config",
    [{"reassign": "suspicious", "warmup": 0, "neighbours": 5}, {"reassign": "all", "every": 1}],
    ids=str,
)
def test_a_restored_objective_goes_on_as_the_first_would(
    lab: Lab, towers: Towers, config: dict[str, Any]
) -> None:
    first, restored = reassigning(lab, **config), reassigning(lab, **config)
    first.loss(batch_of(lab, first, range(32)), towers)
    state = {name: value.clone() for name, value in first.state_dict().items()}
    restored.load_state_dict(state)
    losses = [one.loss(batch_of(lab, one, range(16, 48)), towers) for one in (first, restored)]
    assert torch.equal(*losses)
    assert torch.equal(first.partner[16:48], restored.partner[16:48])
    for name, value in first.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name])
