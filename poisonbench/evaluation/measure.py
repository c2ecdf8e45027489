"""Every metric of a record, computed from stored outputs and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poisonbench.evaluation.attack_retrieval import attack_retrieval
from poisonbench.evaluation.attack_success import attack_success
from poisonbench.evaluation.detection import detection, screening
from poisonbench.evaluation.outputs import Block, Outputs, Part
from poisonbench.evaluation.statistics import cluster_interval
from poisonbench.records import (
    Accuracy,
    AttackRetrieval,
    AttackSuccess,
    Detection,
    ProbeAccuracy,
    Retrieval,
    Screening,
)

DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class Measures:
    """The metrics of one cell, in the types of its record.

    Attributes:
        asr: attack success, or None for an attack without a goal.
        attack_retrieval: what its searches find, or None where it searches nothing.
        zero_shot: per task.
        linear_probe: per task.
        retrieval: on the validation pairs, or None where there were none.
        detection: of poisoned training rows, or None where no defence scored them.
        screening: of attacked inputs, or None where no defence screened them.
    """

    asr: AttackSuccess | None
    attack_retrieval: AttackRetrieval | None
    zero_shot: dict[str, Accuracy]
    linear_probe: dict[str, ProbeAccuracy]
    retrieval: Retrieval | None
    detection: Detection | None
    screening: Screening | None


def measure(outputs: Outputs, headline: str = "") -> Measures:
    """All metrics of ``outputs``; the order of the stored rows does not matter.

    Args:
        outputs: of one cell.
        headline: the task whose clean images a screening defence is judged on; empty for all tasks.

    Raises:
        UserError: if the attack's outputs break the rules of a probe (see ``attack_success``).
    """
    return Measures(
        asr=attack_success(outputs),
        attack_retrieval=attack_retrieval(outputs),
        zero_shot={task: _accuracy(outputs.block("zero_shot", task)) for task in outputs.tasks("zero_shot")},
        linear_probe={task: _probe_accuracy(outputs, task) for task in outputs.tasks("probe")},
        retrieval=_retrieval(outputs),
        detection=detection(outputs),
        screening=screening(outputs, headline),
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
