"""Fine-tuning: plain CLIP on the clean pairs, over a sweep of learning rates; shrink-and-perturb changes the start alone."""

from __future__ import annotations

import copy

import pytest
import torch
from repairing import LAB, SHORT, fine_tuned, only, repaired_weights, undefended

from poisonbench.defense import Candidate, Objective
from poisonbench.defenses.finetune import FineTune, shrink_and_perturb
from poisonbench.errors import UserError
from poisonbench.tier import load_tier
from poisonbench.towers import Towers

RATES = (0.01, 0.1, 1.0)


def changed(shrink: float, perturb: float) -> Towers:
    towers = copy.deepcopy(undefended())
    shrink_and_perturb(towers, LAB, shrink, perturb)
    return towers


def test_candidates_are_the_tier_s_learning_rate_times_the_factors_ascending() -> None:
    found = FineTune({"lrs": RATES}).repair(LAB)
    assert [one.recipe.lr for one in found.values()] == pytest.approx(
        [LAB.recipe.lr * rate for rate in RATES]
    )
    assert list(found) == ["lr 1e-05", "lr 0.0001", "lr 0.001"]


def test_what_is_not_configured_is_the_tier_s_recipe() -> None:
    config = {"lrs": (0.1,), "epochs": 3, "batch": 8, "warmup": 0.5, "weight_decay": 0.0}
    own = only(FineTune(config)).recipe
    assert (own.epochs, own.batch, own.warmup, own.weight_decay) == (3, 8, 0.5, 0.0)
    default = only(FineTune({"lrs": (0.1,)})).recipe
    assert (default.batch, default.weight_decay) == (LAB.recipe.batch, LAB.recipe.weight_decay)
    assert (default.betas, default.images) == (LAB.recipe.betas, LAB.recipe.images)


def test_it_is_plain_clip_under_that_recipe() -> None:
    plain = Candidate(Objective(), only(FineTune(SHORT)).recipe)
    assert torch.equal(fine_tuned(), repaired_weights(plain))


def test_a_shrink_of_one_and_no_perturbation_is_plain_fine_tuning() -> None:
    same = only(FineTune({**SHORT, "shrink": 1.0, "perturb": 0.0}))
    other = only(FineTune({**SHORT, "shrink": 0.9, "perturb": 0.0}))
    assert torch.equal(fine_tuned(), repaired_weights(same))
    assert not torch.equal(fine_tuned(), repaired_weights(other))


def test_weights_are_shrunk_and_perturbed_by_as_much_as_is_said() -> None:
    weight = "text.token_embedding.weight"
    before = undefended().model.get_parameter(weight)
    assert torch.allclose(changed(0.5, 0.0).model.get_parameter(weight), before / 2)
    noise = (changed(0.5, 0.1).model.get_parameter(weight) - before / 2).detach()
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(noise.mean())) < 0.01


def test_the_noise_is_that_of_the_seed_and_the_temperature_stays() -> None:
    first, again = (dict(changed(0.5, 0.1).model.named_parameters()) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(first["logit_scale"], undefended().model.logit_scale)


@pytest.mark.parametrize(
    "config", [{"lrs": []}, {"lrs": [0.1, 0.1]}, {"lrs": [1.0, 0.1]}, {"lrs": [0.0, 0.1]}, {"lrs": [-1.0]}]
)
def test_a_sweep_that_does_not_rise_from_above_zero_is_refused(config: dict[str, list[float]]) -> None:
    with pytest.raises(UserError, match="lrs"):
        FineTune(config)


@pytest.mark.parametrize("field", ["shrink", "epochs", "batch"])
def test_nothing_left_of_the_weights_the_epochs_or_the_batch_is_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"field '{field}'"):
        FineTune({field: 0})


def test_the_default_run_costs_at_most_a_quarter_of_an_undefended_cell_of_the_clipart_tier() -> None:
    tier = load_tier("clipart").recipe
    recipes = FineTune().config.recipes(tier).values()
    assert all(one.epochs * 1572 <= 0.25 * tier.epochs * 13175 for one in recipes)
