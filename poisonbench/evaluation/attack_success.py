"""Attack success: how often the attacker's goal is predicted, and how often it would be anyway."""

from __future__ import annotations

import numpy as np

from poisonbench.errors import UserError
from poisonbench.evaluation.outputs import ABSENT, Block, Outputs
from poisonbench.evaluation.statistics import wilson
from poisonbench.records import AttackSuccess


def attack_success(outputs: Outputs) -> AttackSuccess | None:
    """The attack's success on its inputs and on their controls, or None for outputs without an attack.

    Images whose true class is the goal would count as success without any attack; the literature disagrees
    about them (numerator, denominator, or both), so here they are in neither and their presence is an error.

    Raises:
        UserError: if an image's true class is its goal, a goal is missing, or there are no controls.
    """
    attacked, controls = outputs.block("attack"), outputs.block("control")
    if len(attacked) == 0:
        return None
    if len(controls) == 0:
        raise UserError("the attack's probe has no controls: add the same images without the attack's input")
    for block, name in ((attacked, "images"), (controls, "controls")):
        _require_foreign_goals(block, name)
    wins, false_wins = _wins(attacked), _wins(controls)
    interval = wilson(wins, len(attacked))
    return AttackSuccess(
        value=wins / len(attacked),
        successes=wins,
        trials=len(attacked),
        low=interval.low,
        high=interval.high,
        base=false_wins / len(controls),
        base_successes=false_wins,
        base_trials=len(controls),
        true_class=_true_class(attacked),
    )


def _require_foreign_goals(block: Block, name: str) -> None:
    if np.any(block.goal == ABSENT):
        raise UserError(
            f"the attack's probe has {name} without a goal: give each the class that the attacker wants"
        )
    own = int(np.sum(block.goal == block.label))
    if own:
        raise UserError(f"the attack's probe has {own} {name} whose true class is the goal: leave them out")


def _wins(block: Block) -> int:
    return int(np.sum(block.prediction == block.goal))


def _true_class(attacked: Block) -> float | None:
    known = attacked.label != ABSENT
    return float(np.mean(attacked.prediction[known] == attacked.label[known])) if known.any() else None
