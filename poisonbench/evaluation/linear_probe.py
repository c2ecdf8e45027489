"""Linear probe: logistic regression on frozen image embeddings, trained and tested on different concepts.

The towers expose the image embedding after normalisation, so that is the feature (CleanCLIP and its
successors probe it before normalisation); features are standardised on the training half.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from poisonbench.pairs import Rows

STRENGTHS = (0.003, 0.03, 0.3)
"""Inverse regularisation strengths, chosen from by a split inside the training half."""

MAX_ITERATIONS = 200

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def split_by_concept(labels: Labels, concepts: Sequence[str], seed: int = 0) -> tuple[Rows, Rows]:
    """Training and test rows, ascending: half of each class's concepts, at least one, train.

    All pictures of a concept are on one side, also where classes share it. A class with a single concept is
    never tested.
    """
    rng = np.random.default_rng(seed)
    names = np.asarray(concepts, dtype=np.str_)
    trains: dict[str, bool] = {}
    for label in np.unique(labels):
        own = np.unique(names[labels == label])
        free = [name for name in rng.permutation(own) if name not in trains]
        wanted = (len(own) + 1) // 2 - sum(trains.get(name, False) for name in own)
        trains.update((name, place < wanted) for place, name in enumerate(free))
    side = np.array([trains[name] for name in names], dtype=bool)
    return np.flatnonzero(side), np.flatnonzero(~side)


def probe_predictions(features: Features, labels: Labels, concepts: Sequence[str]) -> tuple[Rows, Labels]:
    """Predicted labels of the test half.

    Args:
        features: (n, d) of a frozen encoder.
        labels: (n,) true classes.
        concepts: (n,) what is drawn.

    Returns:
        The test rows and their predicted labels; both are empty where every class has a single concept.
    """
    train, test = split_by_concept(labels, concepts)
    if len(test) == 0:
        return test, labels[test]
    inside = [concepts[row] for row in train]
    strength = _best_strength(features[train], labels[train], inside)
    return test, _fit_predict(features[train], labels[train], features[test], strength)


def _best_strength(features: Features, labels: Labels, concepts: Sequence[str]) -> float:
    """The strength that does best on half of the training concepts; the strongest penalty wins ties."""
    train, test = split_by_concept(labels, concepts, seed=1)
    if len(test) == 0:
        return STRENGTHS[1]
    right = [
        np.sum(_fit_predict(features[train], labels[train], features[test], strength) == labels[test])
        for strength in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(right))]


def _fit_predict(features: Features, labels: Labels, queries: Features, strength: float) -> Labels:
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(np.unique(labels)) == 1:
        return np.full(len(queries), labels[0])
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, tol=1e-3, random_state=0)
    )
    # BLAS keeps to the cell's threads, so that cells side by side do not fight for cores.
    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        warnings.simplefilter("ignore")  # the iterations are bounded on purpose
        predicted: Labels = model.fit(features, labels).predict(queries)
    return predicted
