"""Searches of an attack: hits and ranks of the pictures that it wants found, beside those of other captions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poisonbench.attack import Probe, Queries
from poisonbench.conformance.data import tiny_data
from poisonbench.errors import UserError
from poisonbench.evaluation.attack_probe import check_probe
from poisonbench.evaluation.attack_retrieval import attack_retrieval
from poisonbench.evaluation.outputs import Outputs
from poisonbench.evaluation.retrieval import best_ranks
from poisonbench.pairs import ArrayImages

TASK = tiny_data().headline


def searched(**changes: Any) -> Probe:
    queries = {
        "gallery": TASK.images, "groups": TASK.labels, "captions": ["a fruit", "fruit"], "goals": np.array([1, 1]),
        "controls": ["a tool"], "control_goals": np.array([1]),
    }  # fmt: skip
    goals = np.zeros(1, dtype=np.int64)
    image = TASK.images.fetch(TASK.rows_of("tool")[:1])
    return Probe(TASK.name, image, goals, goals + 3, ["x"], image, goals, Queries(**{**queries, **changes}))


def test_hits_and_ranks_are_means_over_the_searches() -> None:
    outputs = Outputs()
    outputs.add("query", "t", index=range(4), goal=[0] * 4, rank=[1, 3, 7, 20])
    outputs.add("query_control", "t", index=range(2), goal=[0] * 2, rank=[4, 40])
    found = attack_retrieval(outputs)
    assert found is not None
    assert found.hits == {"1": 0.25, "5": 0.5, "10": 0.75} and found.min_rank == 31 / 4
    assert found.base_hits == {"1": 0, "5": 0.5, "10": 0.5} and found.base_min_rank == 22
    assert found.n == 4


def test_an_attack_that_searches_nothing_has_no_such_numbers() -> None:
    assert attack_retrieval(Outputs()) is None


def test_the_rank_is_that_of_the_best_wanted_picture_and_ties_go_against_it() -> None:
    gallery = torch.eye(3)
    queries = torch.tensor([[0.9, 0.4, 0.1], [0.5, 0.5, 0.5]])
    groups = np.array([0, 1, 1])
    assert best_ranks(queries, gallery, (np.array([1, 0]), groups)).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goals": np.array([1])}, "1 groups or goals for 2 captions"),
        ({"controls": [], "control_goals": np.array([], dtype=np.int64)}, "for 0 controls"),
        ({"gallery": ArrayImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))}, "for 2 gallery"),
        ({"goals": np.array([1, 9])}, "look for group 9, which no picture of theirs has"),
    ],
)
def test_queries_that_cannot_be_judged_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_probe(searched(**changes), [TASK])


def test_sound_queries_are_accepted() -> None:
    check_probe(searched(), [TASK])
