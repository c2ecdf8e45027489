"""What filters share: the budget, the scoring model, and a cost that is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.curating import curated
from poisonbench.defense import Curation, Defense, DefenseCard
from poisonbench.filtering import scoring_model, without_most_suspicious
from poisonbench.lab import Lab
from poisonbench.pairs import Pairs
from poisonbench.progress import Journal, Progress
from poisonbench.slots import Checkpoints

CARD = DefenseCard(title="test", paper="-", year=2026, track="filter")


@pytest.fixture
def lab() -> Lab:
    return replace(tiny_lab(tiny_data(), CARD), progress=Journal(Progress()))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.floats(0, 0.99))
def test_the_budget_takes_the_largest_scores_and_never_more(values: list[int], remove: float) -> None:
    scores = np.array(values, dtype=float)
    curation = without_most_suspicious(scores, remove)
    assert curation.keep is not None
    gone, kept = scores[~curation.keep], scores[curation.keep]
    assert len(gone) == int(remove * len(scores))
    assert not len(gone) or gone.min() >= kept.max()
    assert curation.scores is scores


@pytest.mark.parametrize(("asked", "trained"), [(2, 2), (0, 3)])
def test_the_scoring_model_trains_as_long_as_asked_or_as_the_recipe_and_says_so(
    lab: Lab, asked: int, trained: int
) -> None:
    scoring_model(lab, asked)
    assert isinstance(lab.progress, Journal)
    epochs = [note for note in lab.progress.notes if note.startswith("epoch")]
    assert len(epochs) == trained
    assert f"plain CLIP, {trained} epochs" in lab.progress.notes[0]


class Costly(Defense):
    """Trains a model before it removes the first row."""

    card = CARD
    calls = 0

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        type(self).calls += 1
        scoring_model(lab, 1)
        return Curation(keep=np.arange(len(pairs)) > 0, scores=np.zeros(len(pairs)))


def test_what_a_filter_trains_is_counted_and_remembered_by_a_resumed_run(lab: Lab, tmp_path: Path) -> None:
    first = curated(Costly(), lab.pairs, replace(lab, checkpoints=Checkpoints(tmp_path, "cell")))
    assert first.seconds > 0
    again = curated(
        Costly(), lab.pairs, replace(lab, checkpoints=Checkpoints(tmp_path, "cell", earlier=1000))
    )
    assert Costly.calls == 1, "the decision is read back"
    assert again.seconds == first.seconds, "and so is its cost, whatever was done since"


def test_a_defence_that_decides_nothing_spends_nothing(lab: Lab) -> None:
    class Idle(Defense):
        """Keeps every row."""

        card = CARD

    assert curated(Idle(), lab.pairs, lab).seconds == 0
