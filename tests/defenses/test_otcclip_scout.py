"""OTCCLIP's scout: crowds that come apart are suspected, copies share a verdict, suspects must fit better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defenses.otcclip import OTCCLIP
from poisonbench.defenses.otcclip import defense as training
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.scout import UNSUSPECTED, first_rows, scattering, suspects
from poisonbench.defenses.otcclip.separation import Separation
from poisonbench.lab import Lab
from poisonbench.tier import Recipe
from poisonbench.training import make_batch

KINDS, EACH, POISONS, D = 24, 40, 48, 32


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), OTCCLIP.card)


def around(points: Tensor, noise: float, rng: torch.Generator) -> Tensor:
    return F.normalize(points + noise * torch.randn(points.shape, generator=rng) / D**0.5, dim=1)


def marked_pictures(seed: int, broken: int) -> tuple[Tensor, Tensor]:
    """Pictures of many kinds, some of which carry a trigger that one of three disturbed looks breaks: looks, poisons."""
    rng = torch.Generator().manual_seed(seed)
    kinds = F.normalize(torch.randn(KINDS, D, generator=rng), dim=1).repeat_interleave(EACH, 0)
    poisons = torch.zeros(len(kinds), dtype=torch.bool)
    poisons[torch.randperm(len(kinds), generator=rng)[:POISONS]] = True
    trigger = F.normalize(torch.randn(D, generator=rng), dim=0)
    marked = torch.where(poisons[:, None], trigger, kinds)
    looks = [marked, *(kinds if look == broken else marked for look in range(3))]
    return torch.stack([around(look, 0.7, rng) for look in looks]), poisons


def unlike(looks: Tensor, seed: int = 9) -> Tensor:
    """Captions that have nothing to do with each other."""
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(looks.shape[1:], generator=rng), dim=1)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31), broken=st.integers(0, 2), crowds=st.sampled_from([[8], [16], [32], [8, 32]])
)
def test_images_that_only_a_trigger_unites_scatter_most_whichever_look_breaks_it(
    seed: int, broken: int, crowds: list[int]
) -> None:
    looks, poisons = marked_pictures(seed, broken)
    strange, telling = scattering(looks, unlike(looks), crowds, alike=0)
    assert float(strange[poisons].quantile(0.1)) > float(strange[~poisons].quantile(0.95))
    assert float((telling[poisons] == broken).float().mean()) > 0.9, "the look that breaks it tells"


def test_what_no_look_breaks_is_not_suspected_more_than_others() -> None:
    looks, poisons = marked_pictures(seed=0, broken=-1)
    strange, _ = scattering(looks, unlike(looks), [16], alike=0)
    above = strange > strange.quantile(0.85)
    assert float(above[poisons].float().mean()) < 0.5


def test_the_order_of_pictures_does_not_matter() -> None:
    looks, _ = marked_pictures(seed=1, broken=0)
    order = torch.randperm(looks.shape[1], generator=torch.Generator().manual_seed(2))
    captions = unlike(looks)
    strange, _ = scattering(looks, captions, [8], alike=0.5)
    shuffled, _ = scattering(looks[:, order], captions[order], [8], alike=0.5)
    assert torch.allclose(shuffled, strange[order], atol=1e-5)


def test_a_crowd_of_which_every_caption_says_something_else_is_let_go() -> None:
    looks, poisons = marked_pictures(seed=3, broken=1)
    captions, target = unlike(looks), F.normalize(torch.ones(D), dim=0)
    same = torch.where(poisons[:, None], target, captions)
    held, _ = scattering(looks, same, [8, 16], alike=0.5)
    assert torch.equal(held[poisons], scattering(looks, captions, [8, 16], alike=0)[0][poisons])
    kinds = torch.where(poisons[:, None], captions, around(looks[0], 0.1, torch.Generator().manual_seed(4)))
    let_go, _ = scattering(looks, kinds, [8, 16], alike=0.5)
    assert (let_go[poisons] == 0).float().mean() > 0.9


def test_a_lonely_picture_does_not_scatter() -> None:
    looks = F.normalize(torch.ones(4, 1, D), dim=2)
    assert scattering(looks, unlike(looks), [8], alike=0.5)[0].tolist() == [0.0]


def test_every_picture_is_represented_by_its_first_row() -> None:
    assert first_rows(torch.tensor([2, 0, 0, 1, 2])).tolist() == [1, 3, 0]


def test_the_outlying_are_suspected_and_copies_together(lab: Lab) -> None:
    groups = torch.arange(len(lab.pairs)) // 2
    telling = suspects(lab, groups, OTCCLIPConfig(outlying=1, crowds=(8,)))
    assert telling.min() == UNSUSPECTED and telling.max() < len(OTCCLIPConfig().looks)
    found = telling != UNSUSPECTED
    assert found.shape == (len(lab.pairs),)
    assert torch.equal(found[0::2], found[1::2])
    assert 0 < float(found.float().mean()) < 0.5
    fewer = suspects(lab, groups, OTCCLIPConfig(outlying=3, crowds=(8,))) != UNSUSPECTED
    assert not (fewer & ~found).any(), "who asks for more suspects fewer"
    assert torch.equal(telling, suspects(lab, groups, OTCCLIPConfig(outlying=1, crowds=(8,)))), (
        "the same scout from the same seed"
    )


def test_no_scout_is_sent_where_none_is_asked_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a scout was trained")

    monkeypatch.setattr(Lab, "train", refuse)
    nobody = suspects(lab, torch.arange(len(lab.pairs)), OTCCLIPConfig(outlying=0, crowds=(8,)))
    assert (nobody == UNSUSPECTED).all()
    OTCCLIP({"reassign": "all"}).objective(lab)


def test_suspects_must_fit_better_than_others() -> None:
    separation = Separation(torch.arange(200), memory=0.5)
    rows, fit = torch.arange(200), torch.full((200,), 1.1)
    decoys = torch.linspace(-2, 2, 200)
    level = torch.where(rows < 100, 0.25, 0.05)
    sound, _ = separation.judge(rows, fit, decoys, level)
    assert sound[:100].all() and not sound[100:].any()


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_suspects_without_a_chance_are_never_sound(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, progress: float
) -> None:
    suspected = torch.arange(len(lab.pairs)) % 2 == 0
    monkeypatch.setattr(training, "suspects", lambda *_: suspected.int() - 1)
    objective = OTCCLIP({"references": 4, "iterations": 3, "negatives": 2, "burden": 0}).objective(lab)
    towers, recipe = lab.fresh("model").eval(), Recipe(epochs=2, batch=32, precision="fp32")
    batch = make_batch(lab.loader(), objective, recipe, np.arange(32), 1, 0, 0, progress)
    objective.loss(batch, towers)
    assignment = objective.assignment()
    assert assignment is not None
    kept = torch.from_numpy(assignment.partner[:32]) == torch.arange(32)
    assert not kept[suspected[:32]].any()
    if progress == 0:
        assert kept[~suspected[:32]].all()
