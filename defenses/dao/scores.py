"""How much sparser the neighbourhood of a point is than that of its neighbours; larger is more of an outlier.

Huang et al. (ICLR 2025, arXiv 2502.01385), section 3: k-distance, SLOF (Schubert et al., 2014) and DAO (Anderberg et al.,
SDM 2024, arXiv 2401.05453). The release leaves the query out of its own list and then counts one neighbour further, and looks
up neighbours without that shift; here r_k is the distance to the k-th *other* point, for query and neighbours alike.
"""

from __future__ import annotations

from torch import Tensor

from poisonbench.defenses.dao.neighbours import Neighbours

SMALLEST = 1e-6
"""Distances below it are rounding errors between copies; a copy of a copy is then no outlier (1 / 1), not nan (0 / 0)."""

LARGEST_LID = 1e3
"""Neighbours that are all equally far would have an infinite intrinsic dimension."""


def k_distance(near: Neighbours) -> Tensor:
    """The distance r_k to the k-th neighbour, (n,)."""
    return near.distance[:, -1]


def slof(near: Neighbours) -> Tensor:
    """Simplified local outlier factor, (n,): the mean over the neighbours o of r_k(x) / r_k(o)."""
    return _ratios(near).mean(dim=1)


def dao(near: Neighbours) -> Tensor:
    """Dimensionality-aware outlierness, (n,): the mean over the neighbours o of LID(o) log(r_k(x) / r_k(o)).

    The paper of DAO averages (r_k(x) / r_k(o)) ** LID(o); the release of Huang et al. averages the logarithms, as here.
    """
    return (intrinsic_dimension(near)[near.index] * _ratios(near).log()).mean(dim=1)


def intrinsic_dimension(near: Neighbours) -> Tensor:
    """Maximum-likelihood local intrinsic dimension, (n,): -1 / mean(log(r_i / r_k)) over the k neighbours."""
    distance = near.distance.clamp_min(SMALLEST)
    steepness = -(distance / distance[:, -1:]).log().mean(dim=1)
    return 1 / steepness.clamp_min(1 / LARGEST_LID)


def _ratios(near: Neighbours) -> Tensor:
    """r_k(x) / r_k(o) for every neighbour o, (n, k)."""
    reach = k_distance(near).clamp_min(SMALLEST)
    return reach[:, None] / reach[near.index]
