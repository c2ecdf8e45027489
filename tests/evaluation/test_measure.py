from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.errors import UserError
from poisonbench.evaluation.attack_success import attack_success
from poisonbench.evaluation.measure import measure
from poisonbench.evaluation.outputs import Outputs
from poisonbench.evaluation.statistics import wilson

attacked = st.lists(
    st.tuples(st.integers(-1, 3), st.integers(0, 3), st.integers(0, 3)).filter(lambda row: row[0] != row[1]),
    min_size=1,
    max_size=40,
)  # (true class, goal, prediction)


def attack_outputs(
    images: Sequence[tuple[int, int, int]], controls: Sequence[tuple[int, int, int]]
) -> Outputs:
    outputs = Outputs()
    for part, rows in (("attack", images), ("control", controls)):
        label, goal, prediction = np.array(rows).reshape(-1, 3).T
        outputs.add(part, "main", index=np.arange(len(rows)), label=label, goal=goal, prediction=prediction)  # type: ignore[arg-type]
    return outputs


@settings(max_examples=50, deadline=None)
@given(attacked, attacked)
def test_attack_success_counts_goals_among_images_of_other_classes(
    images: list[tuple[int, int, int]], controls: list[tuple[int, int, int]]
) -> None:
    found = attack_success(attack_outputs(images, controls))
    assert found is not None
    wins = sum(goal == prediction for _, goal, prediction in images)
    assert (found.successes, found.trials, found.value) == (wins, len(images), wins / len(images))
    assert (found.low, found.high) == (wilson(wins, len(images)).low, wilson(wins, len(images)).high)
    assert found.base_successes == sum(goal == prediction for _, goal, prediction in controls)
    assert found.base == found.base_successes / found.base_trials == found.base_successes / len(controls)


@settings(max_examples=25, deadline=None)
@given(attacked, st.integers(0, 3), st.sampled_from(("images", "controls")))
def test_an_image_whose_true_class_is_the_goal_is_never_counted(
    rows: list[tuple[int, int, int]], goal: int, where: str
) -> None:
    spoiled = [*rows, (goal, goal, goal)]
    outputs = attack_outputs(spoiled, rows) if where == "images" else attack_outputs(rows, spoiled)
    with pytest.raises(UserError, match=f"1 {where} whose true class is the goal"):
        attack_success(outputs)


def test_the_share_still_given_its_true_class_ignores_unknown_classes() -> None:
    known = attack_success(attack_outputs([(0, 1, 0), (0, 1, 1), (-1, 1, 0)], [(-1, 1, 0)]))
    unknown = attack_success(attack_outputs([(-1, 1, 0)], [(-1, 1, 0)]))
    assert known is not None and known.true_class == 0.5
    assert unknown is not None and unknown.true_class is None


def test_without_an_attack_there_is_no_success_rate_and_without_controls_no_honest_one() -> None:
    assert attack_success(Outputs()) is None
    with pytest.raises(UserError, match="no controls"):
        attack_success(attack_outputs([(0, 1, 1)], []))
    with pytest.raises(UserError, match="without a goal"):
        attack_success(attack_outputs([(0, -1, 1)], [(0, 1, 1)]))


def full_outputs(order: np.random.Generator | None) -> Outputs:
    """Outputs with every part; ``order`` shuffles the rows of each."""
    rng = np.random.default_rng(5)
    outputs = Outputs()

    def add(part: str, task: str, n: int) -> None:
        columns = {
            "index": np.arange(n),
            "label": rng.integers(0, 3, n),
            "goal": np.full(n, 3),
            "prediction": rng.integers(0, 4, n),
            "rank": rng.integers(1, 15, n),
            "top5": rng.integers(0, 4, (n, 2)),
            "concept": np.array([f"c{row % 7}" for row in range(n)]),
        }
        rows = np.arange(n) if order is None else order.permutation(n)
        outputs.add(part, task, **{name: values[rows] for name, values in columns.items()})  # type: ignore[arg-type]

    parts = [
        "zero_shot",
        "attack",
        "control",
        "probe",
        "probe_untrained",
        "retrieval_image",
        "retrieval_text",
    ]
    for part in parts:
        add(part, "main", 40)
    add("zero_shot", "other", 11)
    return outputs


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_metric_depends_on_the_order_of_the_rows(seed: int) -> None:
    assert measure(full_outputs(np.random.default_rng(seed))) == measure(full_outputs(None))


def test_metrics_of_a_loaded_file_are_those_of_the_fresh_outputs(tmp_path: Path) -> None:
    outputs = full_outputs(None)
    outputs.save(tmp_path / "predictions.parquet")
    assert measure(Outputs.load(tmp_path / "predictions.parquet")) == measure(outputs)


def test_accuracies_are_shares_of_the_stored_predictions() -> None:
    outputs = Outputs()
    outputs.add(
        "zero_shot", "t", index=range(4), label=[0, 1, 2, 2], prediction=[0, 1, 0, 0], concept=list("abcd"),
        top5=[[0, 1], [1, 0], [0, 2], [0, 1]],
    )  # fmt: skip
    for part, predicted in (("probe", [1, 1, 0]), ("probe_untrained", [0, 1, 0])):
        outputs.add(part, "t", index=range(3), label=[1, 1, 1], prediction=predicted, concept=list("abc"))  # type: ignore[arg-type]
    outputs.add("retrieval_image", "validation", index=range(4), rank=[1, 5, 6, 11])
    outputs.add("retrieval_text", "validation", index=range(4), rank=[1, 1, 1, 1])
    found = measure(outputs)
    zero_shot, probed = found.zero_shot["t"], found.linear_probe["t"]
    assert (zero_shot.top1, zero_shot.top5, zero_shot.n) == (0.5, 0.75, 4)
    assert zero_shot.low <= zero_shot.top1 <= zero_shot.high
    assert (probed.top1, probed.untrained) == pytest.approx((2 / 3, 1 / 3)) and probed.n == 3
    assert found.retrieval is not None and found.asr is None
    assert found.retrieval.image_to_text == {"1": 0.25, "5": 0.5, "10": 0.75}
    assert found.retrieval.text_to_image == {"1": 1.0, "5": 1.0, "10": 1.0}


def test_no_outputs_give_no_metrics() -> None:
    found = measure(Outputs())
    assert (found.asr, found.zero_shot, found.linear_probe, found.retrieval) == (None, {}, {}, None)
