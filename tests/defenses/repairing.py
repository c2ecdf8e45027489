"""One small undefended model, and what a repair's only candidate makes of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Batch, Candidate, Defense, DefenseCard, Objective
from poisonbench.defenses.finetune import FineTune
from poisonbench.lab import Lab
from poisonbench.repair import trained
from poisonbench.towers import Towers
from poisonbench.training import fit, make_batch, state_of

SHORT: dict[str, Any] = {"lrs": (0.5,), "epochs": 2, "batch": 16}
"""A sweep of one candidate: two epochs of three steps on the 48 clean pairs."""

LAB: Lab = tiny_lab(
    tiny_data(), DefenseCard(title="test", paper="-", year=2026, track="repair", sees=("clean",))
)


@cache
def undefended() -> Towers:
    """The model after an epoch on all pairs."""
    towers = LAB.fresh("model")
    fit(towers, Objective(), LAB.loader(), LAB.recipe.model_copy(update={"epochs": 1}), LAB.progress)
    return towers


def only(defense: Defense) -> Candidate:
    """The candidate of a sweep with one learning rate."""
    [candidate] = defense.repair(LAB).values()
    return candidate


def first_batch(candidate: Candidate) -> Batch:
    """What the loop gives the candidate's loss first."""
    loader = LAB.loader(LAB.clean, candidate.recipe.batch)
    [rows, *_] = loader.order(torch.arange(len(LAB.clean)).numpy(), 1, 0, True)
    return make_batch(loader, candidate.objective, candidate.recipe, rows, 1, 0, 0, 0.0)


def repaired_weights(candidate: Candidate) -> Tensor:
    """Every tensor of the repaired model, in one."""
    model, _ = trained("one", candidate, LAB, undefended())
    return torch.cat([value.flatten().double() for _, value in state_of(model)])


@cache
def fine_tuned() -> Tensor:
    """The weights after plain fine-tuning: what the other repairs are without their idea."""
    return repaired_weights(only(FineTune(SHORT)))
