"""Image-text retrieval: at which rank is a true partner found?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench.evaluation.embeddings import embed_images, embed_texts
from poisonbench.evaluation.outputs import Ints
from poisonbench.pairs import Pairs
from poisonbench.towers import Towers

LIMIT = 2000
"""Pairs that take part, the first ones: recall depends on the gallery's size, so it must not vary."""

CHUNK = 512

Groups = npt.NDArray[np.int64]


def retrieval_ranks(
    towers: Towers, pairs: Pairs, advance: Callable[[int], None] = lambda done: None
) -> tuple[Ints, Ints]:
    """The 1-based rank of the best true partner, image to text and text to image, int32 (n,) each; n is at most ``LIMIT``.

    True partners are rows with the same picture, and rows whose first captions the model reads alike. A wrong row with the
    same score goes first, so that a model that gives everything one embedding finds nothing.

    Args:
        towers: the model.
        pairs: the first ones take part.
        advance: told how many images are done.
    """
    rows = np.arange(min(len(pairs), LIMIT))
    captions = [options[0] for options in pairs.captions[: len(rows)]]
    images, texts = embed_images(towers, pairs.images, rows, advance), embed_texts(towers, captions)
    alike = (
        groups_of(ids.tobytes() for ids in towers.tokenizer(captions).numpy()),
        groups_of(_contents(pairs, rows)),
    )
    partners = [(group, group) for group in alike]
    return best_ranks(images, texts, *partners), best_ranks(texts, images, *partners)


def groups_of(values: Iterable[Hashable]) -> Groups:
    """A number per value, equal for equal ones."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def best_ranks(queries: Tensor, gallery: Tensor, *partners: tuple[Groups, Groups]) -> Ints:
    """The 1-based rank of the best true partner per query, int32 (q,); wrong members with its score go first.

    Args:
        queries: (q, d) unit vectors.
        gallery: (g, d) unit vectors.
        partners: the group that each query looks for, (q,), and the group of each member of the gallery, (g,). Who is
            wanted in one of several such pairs is a true partner.
    """
    found, start = [], 0
    for chunk in torch.split(queries, CHUNK):
        scores = chunk @ gallery.T
        own = slice(start, start := start + len(chunk))
        true = torch.from_numpy(np.any([wanted[own, None] == groups for wanted, groups in partners], axis=0))
        best = scores.masked_fill(~true, -torch.inf).amax(dim=1, keepdim=True)
        found.append(1 + ((scores >= best) & ~true).sum(dim=1))
    ranks: Ints = torch.cat(found).numpy().astype(np.int32)
    return ranks


def _contents(pairs: Pairs, rows: Groups) -> Iterable[bytes]:
    """A hash of every picture."""
    for chunk in np.array_split(rows, range(CHUNK, len(rows), CHUNK)):
        for picture in pairs.images.fetch(chunk).numpy():
            yield hashlib.sha256(picture.tobytes()).digest()
