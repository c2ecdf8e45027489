"""Zero-shot classification with clip-benchmark's classifier builder and runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poisonbench.evaluation.embeddings import BATCH, embed_texts
from poisonbench.evaluation.outputs import TOP, Ints
from poisonbench.pairs import ArrayImages, ImageStore
from poisonbench.tasks import Task
from poisonbench.towers import Towers


@cache
def clip_benchmark() -> Any:
    """clip-benchmark's module, without its progress bars: the runner shows its own."""
    from clip_benchmark.metrics import zeroshot_classification as module

    module.tqdm = partial(module.tqdm, disable=True)
    return module


class Prompts:
    """A task's prompts, encoded in large batches before clip-benchmark asks for them class by class.

    It stands in for tokenizer and model: a text becomes its place in the table, and a place its embedding.
    """

    def __init__(self, towers: Towers, texts: list[str]) -> None:
        """``texts`` are all prompts that will be asked for."""
        self._places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        self._table = embed_texts(towers, list(self._places)).to(towers.device)

    def __call__(self, texts: list[str]) -> Tensor:
        """The places of ``texts``, int64 (n,)."""
        return torch.tensor([self._places[text] for text in texts])

    def encode_text(self, places: Tensor) -> Tensor:
        """The embeddings at ``places``, (n, d)."""
        return self._table[places]


@torch.no_grad()
def class_weights(towers: Towers, task: Task) -> Tensor:
    """One unit vector per class of ``task``, the mean over its templates: (d, C), on the towers' device."""
    classes, templates = list(task.classes), list(task.templates)
    prompts = Prompts(towers, [template.format(c=name) for name in classes for template in templates])
    device = towers.device.type
    weights: Tensor = clip_benchmark().zero_shot_classifier(
        prompts, prompts, classes, templates, device, amp=False
    )
    return weights


@torch.no_grad()
def logits(
    towers: Towers,
    images: ImageStore | Tensor,
    weights: Tensor,
    batch: int = BATCH,
    advance: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """100 x cosine of every image to every class: float32 (n, C), on the CPU.

    Args:
        towers: used in the mode they are in.
        images: a store, or uint8 (n, 3, side, side); at least one image.
        weights: (d, C) of ``class_weights``.
        batch: images per forward pass.
        advance: told how many images are done.

    Raises:
        FloatingPointError: if the result is not finite, as after a run that diverged.
    """
    store = ArrayImages(images) if isinstance(images, Tensor) else images

    def loader() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in np.array_split(np.arange(len(store)), range(batch, len(store), batch)):
            yield store.fetch(rows), torch.from_numpy(rows)
            advance(int(rows[-1]) + 1)

    found: Tensor
    found, _ = clip_benchmark().run_classification(towers, weights, loader(), towers.device.type, amp=False)
    if not torch.isfinite(found).all():
        raise FloatingPointError("the model's zero-shot logits are not finite: its training diverged")
    return found


def best_classes(scores: Tensor) -> Ints:
    """The up to five best classes per row of ``scores`` (n, C), best first: int32 (n, min(5, C))."""
    best: Ints = scores.topk(min(TOP, scores.shape[1])).indices.numpy().astype(np.int32)
    return best
