"""A training that is killed at any step and taken up again ends as if it had never been stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.curating import curated
from poisonbench.defense import Batch, Curation, Defense, DefenseCard, Objective, Pass
from poisonbench.lab import Lab
from poisonbench.pairs import Pairs
from poisonbench.progress import Journal, Progress
from poisonbench.slots import Checkpoints, Slot
from poisonbench.tier import Recipe
from poisonbench.towers import Towers
from poisonbench.training import Training, fit, state_of

RECIPE = Recipe(epochs=3, batch=40, precision="fp32", lr=2e-3)
STEPS = 4 + 1
"""Steps of an epoch: 160 rows in batches of 40, and a pass over a few rows that the epoch before has chosen."""


class Killed(BaseException):
    """Stands for the end of a process."""


class Learning(Objective):
    """Keeps the hardest rows of an epoch for a pass of their own in the next one; drops out features on the way."""

    def __init__(self, lab: Lab, killed_in: int | None = None) -> None:
        self.killed_in = killed_in
        self.losses = torch.zeros(len(lab.pairs))
        self.ended: list[int] = []

    def plan(self, epoch: int) -> Sequence[Pass]:
        hard = self.losses.argsort(descending=True, stable=True)[:20].numpy()
        self.losses = torch.zeros_like(self.losses)
        return [Pass(self.loss), Pass(self.loss, rows=np.sort(hard), drop_last=False, lr_scale=0.5)]

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        if batch.step == self.killed_in:
            raise Killed
        images = torch.nn.functional.dropout(batch.images[0], 0.2)
        image, text = towers.image(images).embedding, towers.text(batch.tokens[0]).embedding
        each = 1 - (image * text).sum(dim=1)
        self.losses[batch.rows] += each.detach()
        return super().loss(batch, towers) + each.mean()

    def finish(self, epoch: int) -> Mapping[str, float]:
        return {"hardest": float(self.losses.max())}

    def state_dict(self) -> dict[str, Tensor]:
        return {"losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.losses = state["losses"].clone()


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), DefenseCard(title="test", paper="-", year=2026, track="filter"))


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    slot = Checkpoints(tmp_path, "cell", every=0).slot("training")
    assert slot is not None
    return slot


Ended = tuple[dict[str, Tensor], Training, Learning]


def life(
    lab: Lab, slot: Slot | None, killed_in: int | None = None, progress: Progress | None = None
) -> Ended:
    """One process: a new model and a new objective, which go on from the slot's checkpoint."""
    towers, objective = lab.fresh("model"), Learning(lab, killed_in)

    def on_epoch(epoch: int, objective: Objective) -> dict[str, float]:
        assert isinstance(objective, Learning)
        objective.ended.append(epoch)
        return {"counted": float(objective.losses.count_nonzero())}

    progress = progress or Progress()
    done = fit(towers, objective, lab.loader(batch=40), RECIPE, progress, on_epoch, checkpoint=slot)
    return dict(state_of(towers)), done, objective


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Ended:
    return life(lab, None)


def same(one: Ended, other: Ended) -> bool:
    (weights, done, _), (again, also_done, _) = one, other
    moments, others = done.optimizer_state, also_done.optimizer_state
    return (
        (done.history, done.pairs) == (also_done.history, also_done.pairs)
        and all(torch.equal(value, again[name]) for name, value in weights.items())
        and moments.keys() == others.keys()
        and all(torch.equal(value, others[name]) for name, value in moments.items())
    )


def test_checkpoints_change_nothing(lab: Lab, slot: Slot, undisturbed: Ended) -> None:
    assert same(life(lab, slot), undisturbed)


@pytest.mark.parametrize(
    "kills", [(0,), (2,), (4,), (5,), (7, 7, 9), (3, 8, 14), (14,)], ids=lambda kills: f"killed in {kills}"
)
def test_a_killed_run_goes_on_bit_for_bit(
    lab: Lab, slot: Slot, undisturbed: Ended, kills: tuple[int, ...]
) -> None:
    for step in kills:
        with pytest.raises(Killed):
            life(lab, slot, step)
    journal = Journal(Progress())
    ended = life(lab, slot, progress=journal)
    assert same(ended, undisturbed)
    assert any("continued from a checkpoint" in note for note in journal.notes) == (kills[-1] > 0)


def test_with_the_last_checkpoint_damaged_the_run_goes_on_from_the_one_before(
    lab: Lab, slot: Slot, undisturbed: Ended
) -> None:
    with pytest.raises(Killed):
        life(lab, slot, 8)
    last = sorted(slot.folder.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-10])
    journal = Journal(Progress())
    assert same(life(lab, slot, progress=journal), undisturbed)
    assert [last.stem in note for note in journal.notes[:1]] == [True] and "step 7" in journal.notes[1]


def test_a_finished_run_is_not_made_again_and_its_last_epoch_is_known(
    lab: Lab, slot: Slot, undisturbed: Ended
) -> None:
    life(lab, slot)
    ended = life(lab, slot, killed_in=0)
    assert same(ended, undisturbed)
    assert ended[2].ended == [RECIPE.epochs], "whoever counts epochs hears of the last one again"
    assert ended[1].seconds > 0


def test_a_checkpoint_is_made_after_every_epoch_however_short(
    lab: Lab, tmp_path: Path, undisturbed: Ended
) -> None:
    slot = Checkpoints(tmp_path, "cell", every=3600).slot("training")
    with pytest.raises(Killed):
        life(lab, slot, 2 * STEPS + 1)
    assert slot and (saved := slot.load(about=_about_of(slot))) and saved.state["step"] == 2 * STEPS
    assert same(life(lab, slot), undisturbed)


def _about_of(slot: Slot) -> str:
    import json

    header = sorted(slot.folder.glob("*.json"))[-1]
    return str(json.loads(header.read_text())["about"])


def test_another_recipe_begins_anew(lab: Lab, slot: Slot) -> None:
    with pytest.raises(Killed):
        life(lab, slot, 8)
    journal, towers = Journal(Progress()), lab.fresh("model")
    other = RECIPE.model_copy(update={"lr": 1e-3})
    fit(towers, Objective(), lab.loader(batch=40), other, journal, checkpoint=slot)
    fresh = lab.fresh("model")
    fit(fresh, Objective(), lab.loader(batch=40), other, Progress())
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(state_of(towers), state_of(fresh), strict=True))
    assert all("other work" in note for note in journal.notes[:2])


def test_a_run_can_start_from_the_moments_of_another(lab: Lab) -> None:
    first = lab.fresh("model")
    moments = fit(first, Objective(), lab.loader(), lab.recipe, Progress()).optimizer_state
    kept = {name: value.clone() for name, value in moments.items()}
    ends = []
    for state in (moments, None, moments):
        towers = lab.fresh("model")
        towers.load_state_dict(first.state_dict())
        fit(towers, Objective(), lab.loader(), lab.recipe, Progress(), optimizer_state=state)
        ends.append(dict(state_of(towers)))
    with_moments, without, again = ends
    assert all(torch.equal(value, again[name]) for name, value in with_moments.items())
    assert not all(torch.equal(value, without[name]) for name, value in with_moments.items())
    assert all(torch.equal(value, kept[name]) for name, value in moments.items()), "they can be used again"


def test_an_error_says_at_which_step_it_came_up(lab: Lab) -> None:
    class Breaks(Objective):
        def loss(self, batch: Batch, towers: Towers) -> Tensor:
            if batch.step == 6:
                raise ValueError("nothing left")
            return super().loss(batch, towers)

    with pytest.raises(ValueError, match="nothing left") as caught:
        fit(lab.fresh("model"), Breaks(), lab.loader(), lab.recipe, Progress())
    assert vars(caught.value)["step"] == 6


class Filter(Defense):
    """Trains two models and drops every other row."""

    card = DefenseCard(title="filter", paper="-", year=2026, track="filter")
    killed_in: tuple[int | None, int | None] = (None, None)
    trained: tuple[dict[str, Tensor], ...] = ()

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        models = [lab.train(Learning(lab, step), recipe=RECIPE) for step in self.killed_in]
        self.trained = tuple(dict(state_of(model)) for model in models)
        scores = np.linspace(0, 1 / 3, len(pairs))
        return Curation(keep=np.arange(len(pairs)) % 2 == 0, captions={4: ("a", "b")}, scores=scores)


def test_a_filter_that_is_killed_in_its_second_training_trains_once_what_it_had_trained(
    lab: Lab, tmp_path: Path
) -> None:
    def working(every: float = 0.0) -> Lab:
        return replace(lab, checkpoints=Checkpoints(tmp_path, "cell", every))

    whole, first, second, third = Filter(), Filter(), Filter(), Filter()
    wanted = curated(whole, lab.pairs, lab).curation
    first.killed_in, second.killed_in, third.killed_in = (None, 7), (0, None), (0, 0)
    with pytest.raises(Killed):
        curated(first, lab.pairs, working())
    found = [curated(one, lab.pairs, working()).curation for one in (second, third)]
    for model, again in zip(whole.trained, second.trained, strict=True):
        assert all(torch.equal(value, again[name]) for name, value in model.items())
    assert third.trained == (), "what was decided is read back"
    for curation in found:
        assert curation.captions == wanted.captions
        assert curation.keep is not None and curation.scores is not None
        assert curation.keep.dtype == bool and np.array_equal(curation.keep, wanted.keep)  # type: ignore[arg-type]
        assert np.array_equal(curation.scores, wanted.scores)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curation"]


def test_a_defence_that_decides_nothing_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    class Idle(Defense):
        card = DefenseCard(title="idle", paper="-", year=2026, track="none")

    idle = curated(Idle(), lab.pairs, replace(lab, checkpoints=Checkpoints(tmp_path, "cell")))
    assert idle.curation == Curation()
    assert list(tmp_path.iterdir()) == []
