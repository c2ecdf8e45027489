"""What a trained model is judged on: first outputs per example, then every number as a pure function of them.

``evaluate`` runs the model once and gives ``Outputs``; ``measure.measure`` turns outputs, fresh or loaded,
into metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poisonbench.attack import Probe
    from poisonbench.evaluation.outputs import Outputs
    from poisonbench.progress import Progress
    from poisonbench.sources import Data
    from poisonbench.towers import Towers


def evaluate(
    towers: Towers, untrained: Towers, data: Data, probe: Probe | None, *, progress: Progress
) -> Outputs:
    """Every output of one cell: zero-shot, linear probes, retrieval, and the attack with its controls.

    Both networks are used in eval mode and left in the mode they came in.

    Args:
        towers: the trained network.
        untrained: the same architecture with its initial weights; its linear probe is the one to beat.
        data: the tasks and the validation pairs.
        probe: the attack's inputs, or None for an attack without a goal.
        progress: told what is being judged.

    Raises:
        UserError: if the probe names no task, or has attacked images without controls.
        FloatingPointError: if a network gives embeddings that are not finite.
    """
    from poisonbench.evaluation.examination import (
        Examination,
    )  # torch: not before there is something to judge

    return Examination(towers, untrained, data, progress).run(probe)
