"""Which rows show the same picture: exact copies by their thumbnails, near copies by laying one picture over the other.

An attacker who adds a picture many times gives it many chances, and one who crops, mirrors or recolours the copies no fewer. A
plain model says who might be a copy of whom, since it hardly sees such changes, and pixels decide: two cuts from one picture
agree where they lie over each other. Only crowds of near copies are taken together, since many drawings come in a few
versions that are pairs of their own. All of it is our reconstruction.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from poisonbench.defenses.otcclip.crowds import nearest
from poisonbench.pairs import ImageStore

SIDE, WINDOW = 12, 9
"""Pixels of a small picture, and of the middle of one that is laid over another."""

ZOOMS = (0.92, 1.0, 1.08)
"""How much larger one copy may show the picture than the other."""

NEIGHBOURS = 8
"""Pictures, the most similar to a scout, that may be copies of one."""

CROWD = 6
"""Near copies that are taken as one picture; fewer are pictures of their own."""

BATCH = 1024
"""Pictures, or pairs of them, that are looked at at a time."""

FAINT = 0.25
"""Grey levels added to the norm of a cut, so that an empty one has no direction."""


def pictures(images: ImageStore, batch: int = BATCH) -> Tensor:
    """A number per row, equal where the pictures are copies of each other (equal 8 x 8 thumbnails of 5 bits): int64 (n,)."""
    parts = _fetched(images, torch.arange(len(images)), batch)
    small = torch.cat([F.adaptive_avg_pool2d(part, 8) for part in parts])
    return torch.unique((small / 8).to(torch.uint8).flatten(1), dim=0, return_inverse=True)[1]


def first_rows(groups: Tensor) -> Tensor:
    """The first row of every picture: int64 (pictures,)."""
    size = int(groups.max()) + 1
    rows = torch.arange(len(groups))
    return torch.full((size,), len(groups)).scatter_reduce(0, groups, rows, "amin")


def with_near_copies(images: ImageStore, groups: Tensor, points: Tensor, alike: float) -> Tensor:
    """The picture of every row, where a crowd of near copies is one picture.

    Args:
        images: of n rows.
        groups: int64 (n,) the picture of every row as far as exact copies tell, from 0 without gaps.
        points: (pictures, d) unit embeddings of the first row of every picture; neighbours are sought among all, in
            O(pictures^2 d).
        alike: the least correlation of near copies; 1 finds none.

    Returns:
        int64 (n,), from 0 without gaps.
    """
    if alike == 1 or len(points) < CROWD:
        return groups
    parts = _fetched(images, first_rows(groups), BATCH)
    small = torch.cat([F.interpolate(part, SIDE, mode="area") for part in parts])
    one, other = _candidates(points)
    same = agreement(small.to(points.device), one, other).cpu() >= alike
    return _joined(groups, one.cpu()[same], other.cpu()[same])


def agreement(small: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """How well the middles of some pictures agree with others, wherever they fit best, mirrored or not and at any of the zooms.

    Args:
        small: (pictures, 3, SIDE, SIDE).
        one: int64 (p,), the pictures whose middles are laid over others.
        other: int64 (p,), these others.

    Returns:
        (p,) correlations over pixels, the mean of every colour left out: a copy in other light agrees all the same.
    """
    edge = (SIDE - WINDOW) // 2
    middles = _standardised(small[:, :, edge : edge + WINDOW, edge : edge + WINDOW].flatten(2))
    views = [_zoomed(picture, zoom) for picture in (small, small.flip(3)) for zoom in ZOOMS]
    found = []
    for i, j in zip(one.split(BATCH), other.split(BATCH), strict=True):
        fits = [(_cuts(view[j]) @ middles[i, :, None]).amax(dim=(1, 2)) for view in views]
        found.append(torch.stack(fits).amax(dim=0))
    return torch.cat(found) if found else small.new_zeros(0)


def _candidates(points: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of pictures that are neighbours, each once: int64 (p,) twice."""
    near = nearest(points, min(NEIGHBOURS, len(points) - 1))
    here = torch.arange(len(points), device=points.device)[:, None].expand_as(near)
    pairs = torch.stack([torch.minimum(here, near), torch.maximum(here, near)], dim=-1).flatten(0, 1)
    one, other = torch.unique(pairs, dim=0).unbind(dim=1)
    return one, other


def _joined(groups: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """``groups`` with the pictures ``one`` and ``other`` (p,) joined, where that makes a crowd."""
    size = int(groups.max()) + 1
    edges = coo_matrix((np.ones(len(one)), (one.numpy(), other.numpy())), shape=(size, size))
    crowd = torch.from_numpy(connected_components(edges, directed=False)[1]).long()
    large = torch.bincount(crowd)[crowd] >= CROWD
    picture = torch.where(large, size + crowd, torch.arange(size))
    return torch.unique(picture[groups], return_inverse=True)[1]


def _zoomed(pictures: Tensor, zoom: float) -> Tensor:
    turn = torch.tensor([[1 / zoom, 0.0, 0.0], [0.0, 1 / zoom, 0.0]]).to(pictures)
    grid = F.affine_grid(turn.expand(len(pictures), 2, 3), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _cuts(pictures: Tensor) -> Tensor:
    """Every cut of WINDOW pixels from each of b pictures, standardised: (b, cuts, pixels)."""
    cuts = pictures.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1).permute(0, 2, 3, 1, 4, 5)
    return _standardised(cuts.flatten(1, 2).flatten(3))


def _standardised(cuts: Tensor) -> Tensor:
    """Cuts (..., 3, pixels) without the mean of every colour, as vectors of length one."""
    flat = (cuts - cuts.mean(dim=-1, keepdim=True)).flatten(-2)
    return flat / (flat.norm(dim=-1, keepdim=True) + FAINT)


def _fetched(images: ImageStore, rows: Tensor, batch: int) -> Iterator[Tensor]:
    """The pictures of some rows as floats in [0, 255], in batches."""
    return (images.fetch(part.numpy()).float() for part in rows.split(batch))
