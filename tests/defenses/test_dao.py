"""Local outliers: every score against its definition in float64, and a planted backdoor among embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defenses.dao import DAO, SLOF, KDistance
from poisonbench.defenses.dao.defense import LocalOutlierFilter
from poisonbench.defenses.dao.neighbours import nearest
from poisonbench.defenses.dao.scores import LARGEST_LID, dao, intrinsic_dimension, k_distance, slof
from poisonbench.evaluation.ranking import auroc
from poisonbench.lab import Lab

SCORES = {"k_distance": k_distance, "slof": slof, "dao": dao}
SIBLINGS = (DAO, SLOF, KDistance)

clouds = st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 30), st.integers(1, 5), st.integers(1, 6))


def cloud(seed: int, n: int, d: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


def by_definition(points: npt.NDArray[np.float64], k: int) -> dict[str, npt.NDArray[np.float64]]:
    """All three scores, one point and one neighbour at a time."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1)[:, :k]
    radii = np.take_along_axis(distance, near, axis=1)
    reach = radii[:, -1]
    logs = [-np.mean([np.log(r / row[-1]) for r in row]) for row in radii]
    lid = [1 / max(one, 1 / LARGEST_LID) for one in logs]
    ratios = [[reach[x] / reach[o] for o in near[x]] for x in range(len(points))]
    weighted = [[lid[o] * np.log(reach[x] / reach[o]) for o in near[x]] for x in range(len(points))]
    return {"k_distance": reach, "slof": np.mean(ratios, axis=1), "dao": np.mean(weighted, axis=1)}


@settings(max_examples=40, deadline=None)
@given(clouds)
def test_every_score_is_its_definition(case: tuple[int, int, int, int]) -> None:
    seed, n, d, k = case
    points = cloud(seed, n, d)
    near, expected = nearest(points, k), by_definition(points.numpy(), k)
    for name, score in SCORES.items():
        np.testing.assert_allclose(score(near).numpy(), expected[name], rtol=1e-6, atol=1e-9, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(clouds, st.integers(1, 5000))
def test_neighbours_are_sklearns_whatever_the_memory_budget(
    case: tuple[int, int, int, int], budget: int
) -> None:
    seed, n, d, k = case
    points = cloud(seed, n, d)
    near = nearest(points, k, budget)
    distance, index = NearestNeighbors(n_neighbors=k).fit(points.numpy()).kneighbors()
    np.testing.assert_allclose(near.distance.numpy(), distance, rtol=1e-9)
    np.testing.assert_array_equal(near.index.numpy(), index)


@pytest.mark.parametrize("k", [0, 5, 6])
def test_a_point_has_fewer_neighbours_than_there_are_points(k: int) -> None:
    with pytest.raises(ValueError, match="5 points do not have"):
        nearest(cloud(0, 5, 2), k)


@settings(max_examples=30, deadline=None)
@given(clouds)
def test_with_one_neighbour_slof_is_the_local_outlier_factor(case: tuple[int, int, int, int]) -> None:
    """The reachability that LOF puts in the place of the distance is then the distance itself."""
    seed, n, d, _ = case
    points = cloud(seed, n, d)
    lof = -LocalOutlierFactor(n_neighbors=1).fit(points.numpy()).negative_outlier_factor_
    np.testing.assert_allclose(slof(nearest(points, 1)).numpy(), lof, rtol=1e-5)


def test_with_many_neighbours_slof_ranks_much_like_the_local_outlier_factor() -> None:
    points = cloud(3, 200, 4)
    lof = -LocalOutlierFactor(n_neighbors=16).fit(points.numpy()).negative_outlier_factor_
    ranks = [np.argsort(np.argsort(values)) for values in (slof(nearest(points, 16)).numpy(), lof)]
    assert np.corrcoef(*ranks)[0, 1] > 0.85


@settings(max_examples=30, deadline=None)
@given(clouds, st.floats(0.1, 10))
def test_only_k_distance_depends_on_the_unit_of_length(case: tuple[int, int, int, int], scale: float) -> None:
    seed, n, d, k = case
    points = cloud(seed, n, d)
    one, other = nearest(points, k), nearest(scale * points + 1, k)
    for name, score in SCORES.items():
        expected = score(one) * (scale if name == "k_distance" else 1)
        np.testing.assert_allclose(score(other).numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(clouds, st.randoms(use_true_random=False))
def test_scores_follow_their_points(case: tuple[int, int, int, int], random: Any) -> None:
    seed, n, d, k = case
    points, order = cloud(seed, n, d), list(range(n))
    random.shuffle(order)
    for score in SCORES.values():
        expected = score(nearest(points, k))[order]
        np.testing.assert_allclose(
            score(nearest(points[order], k)).numpy(), expected.numpy(), rtol=1e-9, atol=1e-9
        )


def test_the_intrinsic_dimension_of_a_plane_in_space_is_two() -> None:
    flat = torch.zeros(2000, 10, dtype=torch.float64)
    flat[:, :2] = cloud(1, 2000, 2)
    assert float(intrinsic_dimension(nearest(flat, 32)).median()) == pytest.approx(2, abs=0.25)


def test_copies_are_no_outliers_and_nothing_is_infinite() -> None:
    points = torch.cat([torch.zeros(20, 3), torch.ones(20, 3), torch.tensor([[5.0, 0, 0]])]).double()
    near = nearest(points, 8)
    for name, score in SCORES.items():
        found = score(near)
        assert torch.isfinite(found).all(), name
        assert int(found.argmax()) == 40 and len(set(found[:40].tolist())) == 1, name


def planted(n: int = 3000, share: float = 0.02) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Unit vectors: clean ones in five dense clusters, and poisons that their trigger has pulled to a place of their own."""
    rng = np.random.default_rng(7)
    centres, trigger = rng.normal(size=(5, 32)), rng.normal(size=32)
    poisoned = rng.permutation(n) < share * n
    points = centres[rng.integers(5, size=n)]
    points[poisoned] = trigger + 0.2 * points[poisoned]
    points += 0.4 * rng.normal(size=(n, 32))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return torch.from_numpy(points.astype(np.float32)), poisoned


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), DAO.card)


@pytest.mark.parametrize("sibling", SIBLINGS)
def test_a_planted_trigger_is_found(sibling: type[LocalOutlierFilter], lab: Lab) -> None:
    points, poisoned = planted()
    found = auroc(sibling().scores(points, lab), poisoned)
    assert found is not None and found > 0.95


def test_in_a_batch_with_more_poisons_than_neighbours_they_hide_behind_each_other(lab: Lab) -> None:
    points, poisoned = planted()
    small, large = (
        auroc(DAO({"k": 16, "batch": size}).scores(points, lab), poisoned) for size in (128, 3000)
    )
    assert small is not None and large is not None and small > large + 0.1


def test_more_rounds_steady_the_scores(lab: Lab) -> None:
    points, poisoned = planted()
    clean = ~poisoned
    once, often = (KDistance({"rounds": rounds}).scores(points, lab)[clean].std() for rounds in (1, 8))
    assert often < once


def test_batches_are_drawn_by_the_seed_alone(lab: Lab) -> None:
    points, _ = planted(600)
    first, again = (DAO().scores(points, lab) for _ in range(2))
    other = DAO().scores(points, Lab(**{**vars(lab), "seed": 1}))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n", [2, 17, 255, 257])
def test_every_row_is_scored_however_few_there_are(n: int, lab: Lab) -> None:
    assert np.isfinite(DAO().scores(cloud(5, n, 3).float(), lab)).all()


def test_the_largest_outliers_are_removed_up_to_the_budget(lab: Lab) -> None:
    curation = DAO({"remove": 0.1}).curate(lab.pairs, lab)
    assert curation.keep is not None and curation.scores is not None
    assert (~curation.keep).sum() == len(lab.pairs) // 10
    assert curation.scores[~curation.keep].min() >= curation.scores[curation.keep].max()


def test_a_budget_of_nothing_removes_nothing(lab: Lab) -> None:
    assert DAO({"remove": 0}).curate(lab.pairs, lab).keep.all()
