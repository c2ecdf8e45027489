"""Augmentation only: plain CLIP, told to augment."""

from __future__ import annotations

import pytest
import torch

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Objective
from poisonbench.defenses.augment_only import AugmentOnly
from poisonbench.errors import UserError
from poisonbench.lab import Lab
from poisonbench.tier import Recipe
from poisonbench.training import state_of


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), AugmentOnly.card)


def weights(lab: Lab, objective: Objective, recipe: Recipe) -> torch.Tensor:
    return torch.cat([value.flatten() for _, value in state_of(lab.train(objective, recipe=recipe))])


def test_it_is_plain_clip_under_a_recipe_with_the_same_augmentation(lab: Lab) -> None:
    plain = Recipe(epochs=1, batch=32, precision="fp32", images="none")
    augmenting = plain.model_copy(update={"images": "roclip", "texts": "eda"})
    defended = weights(lab, AugmentOnly().objective(lab), plain)
    assert torch.equal(defended, weights(lab, Objective(), augmenting))
    assert not torch.equal(defended, weights(lab, Objective(), plain))


def test_the_policies_can_be_chosen(lab: Lab) -> None:
    objective = AugmentOnly({"images": "light", "texts": "none"}).objective(lab)
    assert (objective.images, objective.texts) == ("light", "none")


def test_it_keeps_every_row_and_says_that_no_caption_was_replaced(lab: Lab) -> None:
    curation = AugmentOnly().curate(lab.pairs, lab)
    assert curation.keep is None and not curation.captions
    assert AugmentOnly().objective(lab).assignment() is None


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UserError, match="field 'images'"):
        AugmentOnly({"images": "rococo"})
