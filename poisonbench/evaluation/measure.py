"""Every metric of a record, computed from stored outputs and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poisonbench.evaluation.attack_success import attack_success
from poisonbench.evaluation.outputs import Block, Outputs, Part
from poisonbench.evaluation.statistics import cluster_interval
from poisonbench.records import Accuracy, AttackSuccess, ProbeAccuracy, Retrieval

DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class Measures:
    """The metrics of one cell, in the types of its record.

    Attributes:
        asr: attack success, or None for an attack without a goal.
        zero_shot: per task.
        linear_probe: per task.
        retrieval: on the validation pairs, or None where there were none.
    """

    asr: AttackSuccess | None
    zero_shot: dict[str, Accuracy]
    linear_probe: dict[str, ProbeAccuracy]
    retrieval: Retrieval | None


def measure(outputs: Outputs) -> Measures:
    """All metrics of ``outputs``; the order of the stored rows does not matter.

    Raises:
        UserError: if the attack's outputs break the rules of a probe (see ``attack_success``).
    """
    return Measures(
        asr=attack_success(outputs),
        zero_shot={task: _accuracy(outputs.block("zero_shot", task)) for task in outputs.tasks("zero_shot")},
        linear_probe={task: _probe_accuracy(outputs, task) for task in outputs.tasks("probe")},
        retrieval=_retrieval(outputs),
    )


def _accuracy(block: Block) -> Accuracy:
    correct = block.prediction == block.label
    interval = cluster_interval(correct, block.concept)
    top5 = float(np.mean(np.any(block.top5 == block.label[:, None], axis=1)))
    return Accuracy(
        top1=float(np.mean(correct)), top5=top5, n=len(block), low=interval.low, high=interval.high
    )


def _probe_accuracy(outputs: Outputs, task: str) -> ProbeAccuracy:
    trained, untrained = outputs.block("probe", task), outputs.block("probe_untrained", task)
    correct = trained.prediction == trained.label
    interval = cluster_interval(correct, trained.concept)
    return ProbeAccuracy(
        top1=float(np.mean(correct)), n=len(trained), low=interval.low, high=interval.high,
        untrained=float(np.mean(untrained.prediction == untrained.label)),
    )  # fmt: skip


def _retrieval(outputs: Outputs) -> Retrieval | None:
    n = len(outputs.block("retrieval_image"))
    if n == 0:
        return None
    return Retrieval(
        image_to_text=_recalls(outputs, "retrieval_image"),
        text_to_image=_recalls(outputs, "retrieval_text"),
        n=n,
    )


def _recalls(outputs: Outputs, part: Part) -> dict[str, float]:
    ranks = outputs.block(part).rank
    return {str(depth): float(np.mean(ranks <= depth)) for depth in DEPTHS}
