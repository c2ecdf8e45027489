"""How good a model is on the validation split: the only number by which a repair is chosen."""

from __future__ import annotations

import numpy as np
import torch

from poisonbench.errors import UserError
from poisonbench.evaluation.embeddings import embed_images, embed_texts
from poisonbench.evaluation.retrieval import LIMIT, retrieval_ranks
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
    rows = np.arange(min(len(data.validation), LIMIT))
    if not len(rows):
        raise UserError(
            "a repair is chosen on the validation split, which is empty: set data.validation above 0"
        )
    captions = [options[0] for options in data.validation.captions[: len(rows)]]
    images = embed_images(towers, data.validation.images, rows)
    ranks, _ = retrieval_ranks(images, embed_texts(towers, captions), captions)
    return float(np.mean(ranks == 1))
