"""Embeddings of many images or texts, in batches, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from poisonbench.pairs import ImageStore, Rows
from poisonbench.towers import Towers

BATCH = 512


@torch.no_grad()
def embed_images(
    towers: Towers, images: ImageStore, rows: Rows, advance: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Global embeddings of the images of ``rows``: float32 unit vectors (len(rows), d).

    Raises:
        FloatingPointError: if they are not finite.
    """
    found, done = [], 0
    for part in np.array_split(rows, range(BATCH, len(rows), BATCH)):
        found.append(towers.encode_image(images.fetch(part)).cpu())
        advance(done := done + len(part))
    return _finite(torch.cat(found))


@torch.no_grad()
def embed_texts(towers: Towers, texts: Sequence[str]) -> Tensor:
    """Global embeddings of ``texts``: float32 unit vectors (n, d); equal texts get equal vectors.

    Raises:
        FloatingPointError: if they are not finite.
    """
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    batches = torch.split(towers.tokenizer(list(places)), BATCH)
    distinct = torch.cat([towers.encode_text(batch).cpu() for batch in batches])
    return _finite(distinct[[places[text] for text in texts]])


def _finite(embeddings: Tensor) -> Tensor:
    if not torch.isfinite(embeddings).all():
        raise FloatingPointError("the model's embeddings are not finite: its training diverged")
    return embeddings
