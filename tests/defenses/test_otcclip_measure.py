"""What OTCCLIP's test measures: the same look again says the same, and suspects are heard in the look that tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defenses.otcclip import OTCCLIP
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.judge import Judge
from poisonbench.defenses.otcclip.measure import Measure
from poisonbench.defenses.otcclip.scout import Suspicion, nobody
from poisonbench.lab import Lab
from poisonbench.tier import Recipe
from poisonbench.towers import Features
from poisonbench.training import make_batch

SHIFTS = [0, 3, 5, 1, 7]
ROWS = 24


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), OTCCLIP.card)


def features(seed: int, tokens: int) -> Features:
    rng = torch.Generator().manual_seed(seed)
    found = F.normalize(torch.randn(ROWS, tokens, 16, generator=rng), dim=-1)
    real = torch.arange(tokens) < torch.randint(2, tokens + 1, (ROWS, 1), generator=rng)
    return Features(F.normalize(found.sum(dim=1), dim=-1), found, real)


@pytest.mark.parametrize("config", [{}, {"regions": 1}, {"beta": 1}, {"beta": 0}])
def test_the_same_look_at_some_rows_gives_the_same_evidence_again(config: dict[str, Any]) -> None:
    image, at = features(0, 9), torch.tensor([4, 0, 17])
    measure = Measure(OTCCLIPConfig(**config), features(1, 6), SHIFTS)
    plain = measure.fits(image)
    again = measure.evidence_anew(measure.fits(image[at], at), plain, at)
    assert torch.allclose(again, measure.evidence(plain)[0][at], atol=1e-3)


def evidence(lab: Lab, scouted: Suspicion, **config: Any) -> Tensor:
    """What a first batch of an untrained model's pairs leaves as evidence: (rows,)."""
    settings = OTCCLIPConfig(references=6, iterations=5, **config)
    judge = Judge(settings, lab.pairs.images, scouted)
    recipe, objective = Recipe(epochs=2, batch=32, precision="fp32"), OTCCLIP({"outlying": 0}).objective(lab)
    batch = make_batch(lab.loader(), objective, recipe, np.arange(ROWS), 1, 0, 0, 0.5)
    towers = lab.fresh("model").eval()
    with torch.no_grad():
        image, own = towers.image(batch.images[0]), towers.text(batch.tokens[0])
    judge.judge(batch, towers, image, own, [0, 2, 5, 1, 7, 3, 4])
    return judge.separation.evidence.mean[:ROWS]


@pytest.mark.parametrize("look", ["plain", "halves"])
def test_suspects_have_the_evidence_of_their_worst_look_and_the_others_their_own(lab: Lab, look: str) -> None:
    rows = torch.arange(len(lab.pairs))
    scouted = Suspicion((rows % 4 > 0).float(), (rows % 4 - 1).clamp_min(0), rows)
    plain, one, every = (
        evidence(lab, scouted, judge=look, hearing=how) for how in ("plain", "telling", "every")
    )
    here = scouted.suspects[:ROWS]
    assert torch.equal(plain[~here], one[~here]) and torch.equal(plain[~here], every[~here])
    assert (every <= one + 1e-4).all() and (one <= plain).all()
    assert float((plain - one)[here].mean()) > 0.01, "some look says less for them"
    assert float((one - every)[here].mean()) > 0.01, "another look says still less"


def test_without_suspects_nobody_is_heard_again(lab: Lab) -> None:
    none = nobody(torch.arange(len(lab.pairs)))
    assert torch.equal(evidence(lab, none, hearing="plain"), evidence(lab, none, hearing="every"))
