"""What the attack's searches find: hits among the first results and the rank of the best wanted picture."""

from __future__ import annotations

import numpy as np

from poisonbench.evaluation.outputs import Block, Outputs
from poisonbench.records import AttackRetrieval

DEPTHS = (1, 5, 10)


def attack_retrieval(outputs: Outputs) -> AttackRetrieval | None:
    """Hit@k and min-rank of the attack's searches and of their controls, or None for an attack that searches nothing."""
    searches, controls = outputs.block("query"), outputs.block("query_control")
    if len(searches) == 0:
        return None
    return AttackRetrieval(
        hits=_hits(searches),
        min_rank=float(np.mean(searches.rank)),
        base_hits=_hits(controls),
        base_min_rank=float(np.mean(controls.rank)),
        n=len(searches),
    )


def _hits(block: Block) -> dict[str, float]:
    return {str(depth): float(np.mean(block.rank <= depth)) for depth in DEPTHS}
