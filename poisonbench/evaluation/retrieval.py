"""Image-text retrieval: at which rank is a true partner found?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench.evaluation.outputs import Ints

LIMIT = 2000
"""Rows that take part, the first ones: recall depends on the gallery's size, so it must not vary."""

CHUNK = 512


def retrieval_ranks(images: Tensor, texts: Tensor, captions: Sequence[str]) -> tuple[Ints, Ints]:
    """The 1-based rank of the best true partner, image to text and text to image, int32 (n,) each.

    Any row with the same caption is a true partner. A wrong row with the same score goes first, so that a
    model that gives everything one embedding finds nothing.

    Args:
        images: (n, d) unit vectors.
        texts: (n, d) unit vectors, row i the embedding of ``captions[i]``.
        captions: (n,) the canonical captions.
    """
    _, same = np.unique(np.asarray(captions, dtype=np.str_), return_inverse=True)
    groups = same.astype(np.int64)
    return best_ranks(images, texts, groups, groups), best_ranks(texts, images, groups, groups)


def best_ranks(
    queries: Tensor, gallery: Tensor, wanted: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
) -> Ints:
    """The 1-based rank of the best member of the wanted group per query, int32 (q,); wrong ones with its score go first.

    Args:
        queries: (q, d) unit vectors.
        gallery: (g, d) unit vectors.
        wanted: the group that each query looks for, (q,).
        groups: the group of each member of the gallery, (g,).
    """
    found, members = [], torch.from_numpy(groups).to(gallery.device)
    goals = torch.from_numpy(wanted).to(gallery.device)
    for chunk, own in zip(torch.split(queries, CHUNK), torch.split(goals, CHUNK), strict=True):
        scores = chunk @ gallery.T
        true = own[:, None] == members[None, :]
        best = scores.masked_fill(~true, -torch.inf).amax(dim=1, keepdim=True)
        found.append(1 + ((scores >= best) & ~true).sum(dim=1))
    ranks: Ints = torch.cat(found).cpu().numpy().astype(np.int32)
    return ranks
