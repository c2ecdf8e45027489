"""PAR: clean pairs are pushed away from where the poisoned model has them, until a distance reaches tau."""

from __future__ import annotations

import copy

import pytest
import torch
from repairing import LAB, SHORT, fine_tuned, first_batch, only, repaired_weights, undefended
from torch import Tensor

from poisonbench.defense import Objective
from poisonbench.defenses.par import PAR, PerturbAndRecover
from poisonbench.errors import UserError
from poisonbench.tier import load_tier
from poisonbench.towers import Towers
from poisonbench.training import fit


def other() -> Towers:
    """A model that is elsewhere: distances to it are near 2."""
    return LAB.fresh("other").eval()


def loss(towers: Towers, tau: float, weight: float = 0.5, poisoned: Towers | None = None) -> Tensor:
    objective = PerturbAndRecover(tau, weight)
    objective.remember(poisoned or undefended())
    with torch.no_grad():
        return objective.loss(first_batch(only(PAR(SHORT))), towers)


def plain(towers: Towers) -> Tensor:
    with torch.no_grad():
        return Objective().loss(first_batch(only(PAR(SHORT))), towers)


def test_with_a_tau_of_zero_it_is_fine_tuning_bit_for_bit() -> None:
    assert torch.equal(fine_tuned(), repaired_weights(only(PAR({**SHORT, "tau": 0.0}))))
    assert torch.equal(fine_tuned(), repaired_weights(only(PAR({**SHORT, "weight": 0.0}))))
    assert not torch.equal(fine_tuned(), repaired_weights(only(PAR(SHORT))))


def test_the_loss_is_clip_s_minus_half_of_the_distances_to_the_poisoned_model() -> None:
    towers, batch = other(), first_batch(only(PAR(SHORT)))
    with torch.no_grad():
        moved = sum(
            (getattr(towers, side)(given).embedding - getattr(undefended().eval(), side)(given).embedding)
            .square()
            .sum(dim=1)
            .mean()
            for side, given in (("image", batch.images[0]), ("text", batch.tokens[0]))
        )
    torch.testing.assert_close(loss(towers, tau=4.0), plain(towers) - 0.5 * moved)
    torch.testing.assert_close(loss(towers, tau=4.0, weight=2.0), plain(towers) - 2.0 * moved)


def test_a_distance_at_or_above_tau_is_off_each_for_itself() -> None:
    towers, objective = other(), PerturbAndRecover(4.0, 0.5)
    objective.remember(undefended())
    with torch.no_grad():
        objective.loss(first_batch(only(PAR(SHORT))), towers)
    near, far = sorted(objective.distances.tolist())
    assert 0 < near < far
    torch.testing.assert_close(loss(towers, tau=far), plain(towers) - near / 2)
    assert torch.equal(loss(towers, tau=near), plain(towers)), "at tau is off"


def test_where_nothing_has_moved_nothing_is_subtracted() -> None:
    towers = undefended().eval()
    torch.testing.assert_close(loss(towers, tau=2.15), plain(towers))


def test_the_embeddings_move_away_from_the_poisoned_model_s_and_this_is_logged() -> None:
    start = undefended()
    ends = []
    for tau in (0.01, 2.15):
        candidate, model = only(PAR({**SHORT, "epochs": 6, "lrs": (2.0,), "tau": tau})), copy.deepcopy(start)
        candidate.begin(model)
        run = fit(model, candidate.objective, LAB.loader(LAB.clean, 16), candidate.recipe, LAB.progress)
        ends.append(run.history[-1])
    assert ends[1]["image_distance"] > ends[0]["image_distance"]
    assert ends[1]["text_distance"] > ends[0]["text_distance"]


def test_the_poisoned_copy_is_frozen_and_every_candidate_has_its_own() -> None:
    first, second = PAR({**SHORT, "lrs": (0.1, 1.0)}).repair(LAB).values()
    model = copy.deepcopy(undefended())
    first.begin(model)
    before = first.objective.loss(first_batch(first), model.eval())
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    first.objective.loss(first_batch(first), model).backward()
    torch.testing.assert_close(first.objective.loss(first_batch(first), undefended().eval()), before)
    with pytest.raises(RuntimeError, match="remember"):
        second.objective.loss(first_batch(second), model)


def test_the_default_run_costs_at_most_a_quarter_of_an_undefended_cell_of_the_clipart_tier() -> None:
    tier = load_tier("clipart").recipe
    recipes = PAR().config.recipes(tier).values()
    assert all(2 * one.epochs * 1572 <= 0.25 * tier.epochs * 13175 for one in recipes), (
        "the copy's view counts"
    )


def test_a_tau_that_unit_vectors_cannot_reach_is_refused() -> None:
    for config in ({"tau": 4.5}, {"tau": -1}, {"weight": -1}):
        with pytest.raises(UserError, match=r"tau|weight"):
            PAR(config)
