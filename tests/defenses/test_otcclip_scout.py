"""OTCCLIP's scout: pictures in strange crowds are suspected, copies share a verdict, suspects must fit better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defenses.otcclip import OTCCLIP
from poisonbench.defenses.otcclip import defense as training
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.judge import Judge
from poisonbench.defenses.otcclip.scout import Suspicion, strangeness, suspicion
from poisonbench.defenses.otcclip.separation import Separation
from poisonbench.lab import Lab
from poisonbench.tier import Recipe
from poisonbench.training import make_batch


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), OTCCLIP.card)


def test_a_lonely_picture_is_not_strange() -> None:
    one = F.normalize(torch.ones(6, 1, 8), dim=2)
    strange, telling = strangeness(one, one[0], OTCCLIPConfig())
    assert strange.tolist() == [0.0] and telling.tolist() == [0]


def test_the_outlying_are_suspected_and_copies_together(lab: Lab) -> None:
    groups = torch.arange(len(lab.pairs)) // 2
    scouted = suspicion(lab, groups, OTCCLIPConfig(outlying=1, crowds=(8,)))
    assert scouted.telling.min() >= 0 and scouted.telling.max() < len(OTCCLIPConfig().looks)
    found = scouted.suspects
    assert found.shape == (len(lab.pairs),)
    assert torch.equal(scouted.degree[0::2], scouted.degree[1::2])
    assert torch.equal(scouted.telling[0::2], scouted.telling[1::2])
    assert 0 < float(found.float().mean()) < 0.5
    fewer = suspicion(lab, groups, OTCCLIPConfig(outlying=3, crowds=(8,)))
    assert not (fewer.suspects & ~found).any(), "who asks for more suspects fewer"
    assert torch.allclose((3 * fewer.degree).clamp(max=1), scouted.degree), (
        "the same scout from the same seed"
    )


def test_no_scout_is_sent_where_none_is_asked_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a scout was asked")

    monkeypatch.setattr(Lab, "undefended", refuse)
    nobody = suspicion(lab, torch.arange(len(lab.pairs)), OTCCLIPConfig(outlying=0, crowds=(8,)))
    assert not nobody.degree.any() and not nobody.suspects.any()
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
    scouted = Suspicion(
        suspected.float(), torch.zeros(len(suspected), dtype=torch.int64), torch.arange(len(suspected))
    )
    monkeypatch.setattr(training, "suspicion", lambda *_: scouted)
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


@pytest.mark.parametrize(("graded", "levels"), [(True, [0.6, 0.375, 0.15]), (False, [0.6, 0.6, 0.15])])
def test_the_stranger_a_crowd_the_fewer_mismatched_pairs_its_pictures_may_resemble(
    lab: Lab, graded: bool, levels: list[float]
) -> None:
    degree = torch.zeros(len(lab.pairs))
    degree[:3] = torch.tensor([0.0, 0.5, 1.0])
    scouted = Suspicion(degree, torch.zeros(len(degree), dtype=torch.int64), torch.arange(len(degree)))
    config = OTCCLIPConfig(level=0.8, final_level=0.4, burden=0.25, graded=graded)
    judge = Judge(config, lab.pairs.images, scouted)
    objective, recipe = OTCCLIP({"outlying": 0}).objective(lab), Recipe(epochs=2, batch=32, precision="fp32")
    level = judge.level(make_batch(lab.loader(), objective, recipe, np.arange(3), 1, 0, 0, 0.5))
    assert level.tolist() == pytest.approx(levels)
