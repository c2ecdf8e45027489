"""How well scores find what is poisoned or attacked: curves against definitions, and records from stored outputs."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.defense import Curation
from poisonbench.evaluation.detection import detection, note_curation, screening
from poisonbench.evaluation.measure import measure
from poisonbench.evaluation.outputs import ABSENT, Outputs
from poisonbench.evaluation.ranking import auroc, average_precision, recall_at

# few distinct scores, so that ties are the rule
labelled = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30)


def columns(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows])


@settings(max_examples=60, deadline=None)
@given(labelled)
def test_auroc_is_how_often_a_positive_beats_a_negative(rows: list[tuple[int, bool]]) -> None:
    scores, positive = columns(rows)
    duels = [(p > n) + 0.5 * (p == n) for p, n in product(scores[positive], scores[~positive])]
    found = auroc(scores, positive)
    assert found is None if not duels else found == pytest.approx(np.mean(duels))


@settings(max_examples=60, deadline=None)
@given(labelled)
def test_average_precision_is_the_precision_at_every_positive(rows: list[tuple[int, bool]]) -> None:
    scores, positive = columns(rows)
    at = [positive[scores >= score].mean() for score in scores[positive]]
    found = average_precision(scores, positive)
    assert found is None if not at else found == pytest.approx(np.mean(at))


@settings(max_examples=40, deadline=None)
@given(labelled, st.floats(0, 1))
def test_recall_at_a_budget_is_what_a_random_order_of_ties_finds_on_average(
    rows: list[tuple[int, bool]], budget: float
) -> None:
    scores, positive = columns(rows)
    taken = int(budget * len(scores) + 1e-9)
    rng = np.random.default_rng(0)
    orders = (rng.permutation(len(scores)) for _ in range(600))
    tries = [positive[order[np.argsort(-scores[order], kind="stable")[:taken]]].sum() for order in orders]
    found = recall_at(scores, positive, budget)
    assert (
        found is None
        if not positive.any()
        else found == pytest.approx(np.mean(tries) / positive.sum(), abs=0.15)
    )


@settings(max_examples=40, deadline=None)
@given(labelled, st.randoms(use_true_random=False))
def test_no_curve_depends_on_the_order_of_the_rows(rows: list[tuple[int, bool]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for curve in (auroc, average_precision, lambda s, p: recall_at(s, p, 0.3)):
        assert curve(*columns(rows)) == pytest.approx(curve(*columns(shuffled)))


def test_a_budget_of_29_of_100_rows_is_29_rows() -> None:
    assert recall_at(np.arange(100.0), np.arange(100) >= 50, 0.29) == pytest.approx(29 / 50)


SCORES = np.linspace(0, 1, 200)
POISONED = np.array([199, 198, 195, 0])


def curated(keep: np.ndarray | None, scores: np.ndarray | None = SCORES) -> Outputs:
    outputs = Outputs()
    note_curation(outputs, Curation(keep=keep, scores=scores), POISONED)
    return outputs


def test_a_filter_is_judged_by_the_manifest_that_it_did_not_see() -> None:
    found = detection(curated(np.arange(200) < 190))
    assert found is not None
    assert (found.removed, found.removed_poisons) == (10, 3)
    assert found.recall == {"1": 0.5, "2": 0.5, "5": 0.75, "10": 0.75}
    beaten = [196, 196, 194, 0]  # clean rows below each poison
    assert found.auroc == pytest.approx(sum(beaten) / (4 * 196))
    assert found.average_precision == pytest.approx((1 + 1 + 3 / 5 + 4 / 200) / 4)


def test_a_filter_that_scores_without_removing_is_judged_too() -> None:
    found = detection(curated(None))
    assert found is not None and (found.removed, found.removed_poisons) == (0, 0)


def test_without_poison_only_the_removed_rows_are_counted() -> None:
    outputs = Outputs()
    note_curation(outputs, Curation(keep=SCORES < 0.5, scores=SCORES), np.array([], dtype=np.int64))
    found = detection(outputs)
    assert found is not None
    assert (found.auroc, found.average_precision, found.recall) == (None, None, {})
    assert (found.removed, found.removed_poisons) == (100, 0)


def test_a_defence_without_scores_detects_nothing() -> None:
    assert detection(curated(SCORES < 0.5, scores=None)) is None
    assert len(curated(None, scores=None)) == 0


def screened_outputs() -> Outputs:
    """Two tasks of clean images, and attacked ones that succeed; scores above 0.5 were flagged."""
    outputs = Outputs()
    outputs.add(
        "zero_shot",
        "main",
        index=range(4),
        label=[0, 1, 2, 0],
        prediction=[0, ABSENT, 2, 1],
        concept=list("abcd"),
    )
    outputs.judge("zero_shot", "main", np.array([0.1, 0.9, 0.2, 0.3]))
    outputs.add(
        "zero_shot", "other", index=range(2), label=[0, 1], prediction=[ABSENT, ABSENT], concept=list("ab")
    )
    outputs.judge("zero_shot", "other", np.array([0.8, 0.8]))
    outputs.add(
        "attack", "main", index=range(3), label=[1, 2, 1], goal=[0, 0, 0], prediction=[ABSENT, 0, ABSENT]
    )
    outputs.judge("attack", "main", np.array([0.7, 0.25, 0.95]))
    outputs.add("control", "main", index=range(1), label=[1], goal=[0], prediction=[1])
    return outputs  # fmt: skip


def test_screening_compares_attacked_inputs_with_the_headlines_clean_images() -> None:
    found = screening(screened_outputs(), "main")
    assert found is not None
    assert (found.clean, found.attacked, found.false_positive_rate) == (4, 3, 0.25)
    assert found.auroc == pytest.approx((3 + 2 + 4) / 12)
    assert found.asr_at_threshold == pytest.approx(1 / 3)
    everywhere = screening(screened_outputs())
    assert everywhere is not None and (everywhere.clean, everywhere.false_positive_rate) == (6, 0.5)


def test_screening_without_an_attack_is_its_false_positives() -> None:
    outputs = Outputs()
    outputs.add("zero_shot", "main", index=range(2), label=[0, 1], prediction=[0, ABSENT], concept=list("ab"))
    assert screening(outputs, "main") is None, "nobody screened"
    outputs.judge("zero_shot", "main", np.array([0.0, 1.0]))
    found = screening(outputs, "main")
    assert found is not None
    assert (found.auroc, found.asr_at_threshold, found.attacked) == (None, None, 0)
    assert found.false_positive_rate == 0.5


def test_the_metrics_of_a_loaded_file_are_those_of_the_fresh_outputs(tmp_path: Path) -> None:
    outputs = screened_outputs()
    note_curation(outputs, Curation(keep=SCORES < 0.9, scores=SCORES), POISONED)
    outputs.save(tmp_path / "predictions.parquet")
    loaded = Outputs.load(tmp_path / "predictions.parquet")
    assert loaded == outputs
    assert measure(loaded, "main") == measure(outputs, "main")
    assert measure(outputs, "main").detection == detection(outputs)


def test_predictions_from_before_there_were_scores_are_read_as_unscored(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    outputs = Outputs()
    outputs.add("zero_shot", "main", index=range(2), label=[0, 1], prediction=[0, 0], concept=list("ab"))
    outputs.save(path)
    pq.write_table(pq.read_table(path).drop_columns("score"), path)
    assert Outputs.load(path) == outputs
