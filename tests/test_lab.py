"""The lab: a defence is given its workplace and what its card declares, and nothing of the attack."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import DefenseCard, Objective, Sight
from poisonbench.errors import UserError
from poisonbench.lab import Lab
from poisonbench.pairs import Chosen, Pairs
from poisonbench.tier import Recipe

DATA = tiny_data()
SECRETS = ("manifest", "attack", "poison", "probe", "trigger", "target", "task", "test", "data")


def lab_that_sees(*sights: Sight) -> Lab:
    return tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="filter", sees=sights))


@pytest.fixture(scope="module")
def lab() -> Lab:
    return lab_that_sees()


@pytest.mark.parametrize("sight", ["clean", "classes"])
def test_what_the_card_does_not_declare_is_refused(sight: Sight) -> None:
    [other] = {"clean", "classes"} - {sight}
    for sights in ((), (other,)):
        with pytest.raises(PermissionError, match=f"uses '{sight}' but its card does not declare it"):
            getattr(lab_that_sees(*sights), sight)


def test_what_the_card_declares_is_given() -> None:
    lab = lab_that_sees("clean", "classes")
    assert lab.clean is DATA.clean
    assert lab.classes == (DATA.headline.classes, DATA.headline.templates)


def test_the_undefended_model_is_given_to_those_who_declare_it_each_time_as_it_was() -> None:
    with pytest.raises(PermissionError, match="uses 'undefended' but its card does not declare it"):
        lab_that_sees("clean").undefended()
    lab = lab_that_sees("undefended")
    first, second = lab.undefended(), lab.undefended()
    first.model.logit_scale.data.zero_()
    assert float(second.model.logit_scale.detach()) > 0
    with pytest.raises(ValueError, match="no undefended model"):
        replace(lab, _undefended=None).undefended()


def test_data_without_a_clean_split_or_classes_say_so() -> None:
    empty = Pairs(Chosen(DATA.clean.images, np.array([], dtype=np.int64)), [], "empty")
    lab = lab_that_sees("clean", "classes")
    for without in (replace(lab, _clean=None), replace(lab, _clean=empty)):
        with pytest.raises(UserError, match=r"data\.clean"):
            _ = without.clean
    with pytest.raises(ValueError, match="no classes"):
        _ = replace(lab, _classes=None).classes


def test_no_part_of_the_lab_is_about_the_attack_or_the_test_sets() -> None:
    parts = fields(Lab)
    assert {part.name for part in parts if part.name.startswith("_")} == {"_clean", "_classes", "_undefended"}
    for part in parts:
        about = f"{part.name}: {part.type}".lower()
        assert not [secret for secret in SECRETS if secret in about], about


def test_a_generator_is_for_one_purpose_and_always_the_same(lab: Lab) -> None:
    def draw(*keys: int | str) -> tuple[float, float]:
        purpose, *rest = keys
        tensor = torch.rand(1, generator=lab.rng(str(purpose), *rest))
        return float(tensor), float(lab.numpy_rng(str(purpose), *rest).random())

    assert draw("pool", 1) == draw("pool", 1)
    draws = [draw("pool", 1), draw("pool", 2), draw("bank", 1)]
    assert len({one for one, _ in draws}) == len({two for _, two in draws}) == 3


def test_another_seed_draws_other_numbers(lab: Lab) -> None:
    other = replace(lab, seed=lab.seed + 1)
    assert not torch.equal(torch.rand(4, generator=lab.rng("a")), torch.rand(4, generator=other.rng("a")))


def test_embeddings_come_row_by_row_whatever_the_batch(lab: Lab) -> None:
    towers, rows = lab.fresh("model"), np.array([9, 3, 70, 3, 0])
    some = lab.embed_images(towers, lab.pairs, rows, batch=2)
    whole = lab.embed_images(towers, lab.pairs)
    assert whole.shape == (len(lab.pairs), 64)
    torch.testing.assert_close(some, whole[torch.from_numpy(rows)])
    texts = ["a red balo0", "a tool", "picture of a fruit"]
    captions = lab.embed_captions(towers, texts, batch=2)
    torch.testing.assert_close(captions[2:], lab.embed_captions(towers, texts[2:]))
    assert not towers.training and not whole.requires_grad


def test_a_defence_can_train_a_model_of_its_own(lab: Lab) -> None:
    recipe = Recipe(epochs=1, batch=16, precision="fp32")
    start = lab.fresh("defense")
    before = [p.detach().clone() for p in start.parameters()]
    own = lab.train(Objective(), pairs=DATA.validation, recipe=recipe, start=start)
    assert own is start
    assert not all(torch.equal(a, b) for a, b in zip(before, own.parameters(), strict=True))


def test_the_lab_moves_to_the_pairs_that_are_left_after_curation(lab: Lab) -> None:
    moved = lab.on(DATA.validation)
    assert moved.pairs is moved.loader().pairs is DATA.validation
    assert moved.loader(DATA.clean).pairs is DATA.clean
    assert lab.pairs is DATA.train
    assert (moved.seed, moved.recipe, moved.card) == (lab.seed, lab.recipe, lab.card)
