"""How well scores put positives first; every function gives None where there is nothing to tell apart.

Ties are never decided by the order of the rows: an area counts them half, a budget takes their expected share.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def auroc(scores: Scores, positive: Flags) -> float | None:
    """The probability that a positive is scored above a negative, ties counted half; None unless there are both.

    Args:
        scores: (n,), larger is more suspicious.
        positive: (n,).
    """
    if positive.all() or not positive.any():
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores))


def average_precision(scores: Scores, positive: Flags) -> float | None:
    """The mean precision at the positives, tied scores entering together; None without a positive."""
    if not positive.any():
        return None
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, scores))


def recall_at(scores: Scores, positive: Flags, budget: float) -> float | None:
    """The share of the positives among the ``budget`` (a share of all n) highest scores; None without a positive.

    The budget is rounded down to whole rows, and rows that are tied at its edge enter with their expected share.
    """
    if not positive.any():
        return None
    rows = math.floor(budget * len(scores) + 1e-9)  # 0.29 * 100 is 28.999...
    if rows == 0:
        return 0.0
    edge = np.partition(scores, len(scores) - rows)[len(scores) - rows]
    above, tied = scores > edge, scores == edge
    share = (rows - above.sum()) / tied.sum()
    found = positive[above].sum() + share * positive[tied].sum()
    return float(found / positive.sum())
