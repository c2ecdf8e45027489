"""BDetCLIP: its score by its definition, its threshold on the clean split, and a bank that suits any class name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poisonbench.conformance.data import every, tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Screen
from poisonbench.defenses.bdetclip import BDetCLIP
from poisonbench.defenses.bdetclip.defense import description_bank
from poisonbench.lab import Lab
from poisonbench.tokens import Tokenizer
from poisonbench.towers import Towers

DATA = tiny_data()
BANK = description_bank()
CONTEXT = 17
"""Tokens of the smallest text tower that is shipped."""


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(DATA, BDetCLIP.card)


@pytest.fixture(scope="module")
def towers(lab: Lab) -> Towers:
    return lab.fresh("model").eval()


def screen(lab: Lab, towers: Towers, **config: float) -> Screen:
    return BDetCLIP(config).screen(towers, lab)


def test_the_score_is_the_mean_over_classes_of_benign_less_malignant_cosines(
    lab: Lab, towers: Towers
) -> None:
    images = every(DATA.headline.images)[:7]
    with torch.inference_mode():
        image = towers.image(images).embedding

        def cosine(templates: tuple[str, ...], name: str) -> torch.Tensor:
            texts = [template.replace("{c}", name) for template in templates]
            return (image @ towers.text(lab.tokenizer(texts)).embedding.T).mean(dim=1)

        gaps = [cosine(BANK.benign, name) - cosine(BANK.malignant, name) for name in DATA.headline.classes]
    expected = -torch.stack(gaps).mean(dim=0)
    np.testing.assert_allclose(screen(lab, towers).score(images), expected.double().numpy(), atol=1e-6)


def test_the_score_of_an_image_does_not_depend_on_its_batch(lab: Lab, towers: Towers) -> None:
    images, one = every(DATA.headline.images), screen(lab, towers)
    whole = one.score(images)
    parts = np.concatenate([one.score(part) for part in torch.split(images, 5)])
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.25])
def test_the_threshold_flags_its_share_of_the_clean_split(lab: Lab, towers: Towers, share: float) -> None:
    found = screen(lab, towers, false_positives=share)
    flagged = np.mean(found.score(every(lab.clean.images)) > found.threshold)
    assert flagged == pytest.approx(share, abs=1.5 / len(lab.clean))


def test_the_same_bank_serves_every_class_name() -> None:
    for template in (*BANK.benign, *BANK.malignant):
        assert template.count("{c}") == 1 and template.count("{") == 1
    assert not set(BANK.benign) & set(BANK.malignant)


def test_descriptions_fit_into_the_smallest_text_tower() -> None:
    tokenizer = Tokenizer(CONTEXT)
    for template in (*BANK.benign, *BANK.malignant):
        ids = tokenizer(template.replace("{c}", "musical instrument"))[0]
        assert int(ids.argmax()) < CONTEXT - 1, f"{template!r} leaves no token to spare"


def test_class_names_may_hold_any_character() -> None:
    data = tiny_data(wanted=("C{1}", "50% {off}"))
    lab = tiny_lab(data, BDetCLIP.card)
    assert np.isfinite(screen(lab, lab.fresh("model")).threshold)


def test_it_says_that_it_knows_class_names_and_the_clean_split(lab: Lab, towers: Towers) -> None:
    assert set(BDetCLIP.card.sees) == {"clean", "classes"}
    for sees in (("clean",), ("classes",)):
        blind = tiny_lab(DATA, BDetCLIP.card.model_copy(update={"sees": sees}))
        with pytest.raises(PermissionError):
            screen(blind, towers)


def test_it_neither_curates_nor_repairs(lab: Lab) -> None:
    assert BDetCLIP().curate(lab.pairs, lab).keep is None
    assert BDetCLIP().repair(lab) == {}
