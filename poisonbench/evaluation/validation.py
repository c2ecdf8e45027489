"""How good a model is on the validation split: the only number by which a repair is chosen."""

from __future__ import annotations

import numpy as np
import torch

from poisonbench.errors import UserError
from poisonbench.evaluation.retrieval import retrieval_ranks
from poisonbench.evaluation.zero_shot import class_weights, logits
from poisonbench.sources import Data
from poisonbench.towers import Towers


@torch.inference_mode()
def validation_accuracy(data: Data, towers: Towers) -> float:
    """Zero-shot accuracy on the validation classes or, where the pairs have none, recall@1 from image to caption.

    Raises:
        UserError: if there are no validation pairs.
    """
    towers.eval()
    task = data.validation_task
    if task is not None and len(task.images):
        predicted = logits(towers, task.images, class_weights(towers, task)).argmax(dim=1).numpy()
        return float(np.mean(predicted == task.labels))
    if not len(data.validation):
        raise UserError(
            "a repair is chosen on the validation split, which is empty: give more pairs or a larger data.validation"
        )
    ranks, _ = retrieval_ranks(towers, data.validation)
    return float(np.mean(ranks == 1))
