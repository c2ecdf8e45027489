"""Repair after training: candidates of a defence, trained on clean pairs from the undefended model, one chosen by validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from poisonbench.defense import Objective
from poisonbench.lab import Lab
from poisonbench.towers import Towers
from poisonbench.training import Diverged, Training, fit


def repaired(
    candidates: Mapping[str, Objective],
    lab: Lab,
    towers: Towers,
    accuracy: Callable[[Towers], float],
    training: Training,
) -> Towers:
    """The candidate with the best validation accuracy.

    Args:
        candidates: what ``Defense.repair`` gave; empty leaves the towers as they are.
        lab: gives the clean split.
        towers: the undefended model; not changed.
        accuracy: of a model on the validation split.
        training: receives the cost and one history entry per candidate.
    """
    best, best_accuracy = towers, float("-inf")
    for number, (name, objective) in enumerate(candidates.items()):
        candidate = copy.deepcopy(towers)
        try:
            run = fit(candidate, objective, lab.loader(lab.clean), lab.recipe, lab.progress)
        except Diverged as error:
            lab.progress.note(f"repair candidate {name}: {error}")
            continue
        reached = accuracy(candidate)
        training.pairs += run.pairs
        training.history.append({"repair_candidate": float(number), "validation_accuracy": reached})
        lab.progress.note(f"repair candidate {name}: validation accuracy {reached:.4f}")
        if reached > best_accuracy:
            best, best_accuracy = candidate, reached
    return best
