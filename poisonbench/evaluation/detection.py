"""What detectors found: poisoned rows before training (filters), attacked inputs at inference (screening).

The runner, which knows the manifest, puts a filter's scores beside the truth; the filter never sees it. Both metrics are
functions of the stored outputs alone.
"""

from __future__ import annotations

import numpy as np

from poisonbench.defense import Curation
from poisonbench.evaluation.attack_success import attack_success
from poisonbench.evaluation.outputs import ABSENT, Outputs
from poisonbench.evaluation.ranking import auroc, average_precision, recall_at
from poisonbench.pairs import Rows
from poisonbench.records import Detection, Screening

BUDGETS = (1, 2, 5, 10)
"""Removal budgets, percent of the training rows."""

POISONED = REMOVED = 1


def note_curation(outputs: Outputs, curation: Curation, poisoned: Rows) -> None:
    """Store a filter's score of every training row, whether it is poisoned (label), and whether it was removed (prediction).

    Args:
        outputs: receives the part "curation"; nothing for a defence without scores.
        curation: what the defence decided.
        poisoned: the poisoned rows.
    """
    if curation.scores is None:
        return
    rows = np.arange(len(curation.scores))
    removed = np.zeros(len(rows), dtype=bool) if curation.keep is None else ~curation.keep
    outputs.add(
        "curation", "train", index=rows, label=np.isin(rows, poisoned) * POISONED, prediction=removed * REMOVED,
        score=curation.scores,
    )  # fmt: skip


def detection(outputs: Outputs) -> Detection | None:
    """The detection of poisoned rows, or None where no defence scored them."""
    block = outputs.block("curation")
    if len(block) == 0:
        return None
    poison, removed = block.label == POISONED, block.prediction == REMOVED
    recalls = {str(percent): recall_at(block.score, poison, percent / 100) for percent in BUDGETS}
    return Detection(
        auroc=auroc(block.score, poison),
        average_precision=average_precision(block.score, poison),
        recall={percent: recall for percent, recall in recalls.items() if recall is not None},
        removed=int(removed.sum()),
        removed_poisons=int((removed & poison).sum()),
    )


def screening(outputs: Outputs, headline: str = "") -> Screening | None:
    """The detection of attacked inputs among the clean ones of ``headline``, or None where no defence screened them."""
    clean, attacked = outputs.block("zero_shot", headline or None), outputs.block("attack")
    judged = ~np.isnan(clean.score)
    if not judged.any():
        return None
    scores = np.concatenate([clean.score[judged], attacked.score])
    success = attack_success(outputs)
    return Screening(
        auroc=auroc(scores, np.arange(len(scores)) >= judged.sum()),
        false_positive_rate=float(np.mean(clean.prediction[judged] == ABSENT)),
        asr_at_threshold=success.value if success else None,
        clean=int(judged.sum()),
        attacked=len(attacked),
    )
