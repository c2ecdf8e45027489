from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.evaluation.linear_probe import probe_predictions, split_by_concept

drawn = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60)


@settings(deadline=None)
@given(drawn)
def test_no_concept_is_on_both_sides_and_no_row_is_lost(rows: list[tuple[int, int]]) -> None:
    labels, concepts = np.array([row[0] for row in rows]), [f"c{row[1]}" for row in rows]
    train, test = split_by_concept(labels, concepts)
    assert sorted([*train, *test]) == list(range(len(rows)))
    assert not {concepts[row] for row in train} & {concepts[row] for row in test}


@settings(deadline=None)
@given(drawn)
def test_half_of_a_classs_own_concepts_train_and_at_least_one(rows: list[tuple[int, int]]) -> None:
    labels, concepts = np.array([row[0] for row in rows]), [f"{row[0]} c{row[1]}" for row in rows]
    train, _ = split_by_concept(labels, concepts)
    for label in np.unique(labels):
        own = {concepts[row] for row in np.flatnonzero(labels == label)}
        assert len(own & {concepts[row] for row in train}) == (len(own) + 1) // 2


def clusters(n: int, classes: int, dims: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    features = rng.normal(size=(classes, dims))[labels] + rng.normal(size=(n, dims))
    return features.astype(np.float32), labels, [f"{label} {row % 40}" for row, label in enumerate(labels)]


def test_separable_features_are_told_apart_on_unseen_concepts() -> None:
    features, labels, concepts = clusters(400, 4, 32)
    test, predicted = probe_predictions(features, labels, concepts)
    assert np.mean(predicted == labels[test]) > 0.95
    again = probe_predictions(features, labels, concepts)
    assert np.array_equal(again[0], test) and np.array_equal(again[1], predicted)


def test_features_without_information_score_at_chance() -> None:
    features, labels, concepts = clusters(400, 4, 32)
    test, predicted = probe_predictions(np.random.default_rng(1).permutation(features), labels, concepts)
    assert np.mean(predicted == labels[test]) < 0.45


def test_a_task_of_the_usual_size_takes_seconds_and_warns_of_nothing() -> None:
    features, labels, concepts = clusters(1500, 23, 128)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.process_time()
        probe_predictions(features, labels, concepts)
    assert time.process_time() - start < 6


@pytest.mark.parametrize(("labels", "tested"), [([0, 0, 1], [0]), ([0, 1, 2], []), ([4, 4, 4, 4], [4, 4])])
def test_tiny_tasks_are_answered_not_refused(labels: list[int], tested: list[int]) -> None:
    features = np.eye(len(labels), dtype=np.float32)
    test, predicted = probe_predictions(features, np.array(labels), [f"c{row}" for row in range(len(labels))])
    assert len(predicted) == len(test) and np.array(labels)[test].tolist() == tested
