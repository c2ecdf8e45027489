"""Every registered plugin keeps its contract, and a plugin that does not is told what to mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor

from poisonbench.attack import Attack, AttackCard, AttackConfig, Probe, Queries
from poisonbench.conformance import Check, check_plugin, checks_for
from poisonbench.conformance.data import digest, every, tiny_data
from poisonbench.defense import (
    Assignment,
    Batch,
    Candidate,
    Curation,
    Defense,
    DefenseCard,
    Objective,
    Pass,
    Screen,
)
from poisonbench.errors import UserError
from poisonbench.lab import Lab
from poisonbench.manifest import Edit, Manifest, painted
from poisonbench.pairs import Pairs
from poisonbench.registry import attacks, defenses
from poisonbench.settings import Presets, Settings
from poisonbench.tasks import Assets
from poisonbench.towers import Towers
from poisonbench.triggers import Box, Patch


@pytest.mark.parametrize("check", checks_for("attack"), ids=str)
@pytest.mark.parametrize("name", attacks().names())
def test_every_attack_keeps_its_contract(name: str, check: Check) -> None:
    check(attacks().get(name))


@pytest.mark.parametrize("check", checks_for("defense"), ids=str)
@pytest.mark.parametrize("name", defenses().names())
def test_every_defence_keeps_its_contract(name: str, check: Check) -> None:
    check(defenses().get(name))


class Square(Attack):
    """A white square: a sound attack, from which the broken ones below differ in one thing."""

    card = AttackCard(title="square", paper="-", year=2026, edits=("image", "caption"))

    class Config(AttackConfig):
        target: str = "widget"
        rate: float = Field(0.05, gt=0, le=0.2)

    patch: ClassVar[Patch] = Patch(pattern="white", box=Box(left=0.1, top=0.1, size=0.2))

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        words = assets.task.naming(self.config.target)
        rows = rng.choice(pairs.rows_without(words), round(self.config.rate * len(pairs)), replace=False)
        edits = [
            Edit(row=row, operation=self.patch, captions=("a widget",), target="widget")
            for row in rows.tolist()
        ]
        return Manifest(edits=tuple(edits), target_words={"widget": words})

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        return self.of_rows(np.flatnonzero(assets.task.labels != assets.task.index("widget")), assets)

    def of_rows(self, rows: Any, assets: Assets) -> Probe:
        task, goals = assets.task, np.full(len(rows), assets.task.index("widget"), dtype=np.int64)
        clean = task.images.fetch(rows)
        return Probe(
            task=task.name,
            images=painted(clean, [self.patch] * len(rows)),
            goals=goals,
            labels=task.labels[rows],
            concepts=[task.concepts[row] for row in rows],
            controls=clean,
            control_goals=goals,
        )


class Untitled(Square):
    card = AttackCard(title=" ", paper="-", year=2026, edits=())


class DrawsElsewhere(Square):
    """Draws from a generator of its own."""

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        return super().poison(pairs, assets, np.random.default_rng())


class DrawsForNothing(Square):
    """Draws, and then takes the first rows."""

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        rng.random()
        return super().poison(pairs, assets, np.random.default_rng(0))


class Greedy(Square):
    """Poisons twice as many rows as it was told to."""

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        return Square({"rate": 2 * self.config.rate}).poison(pairs, assets, rng)


class InTheCorner(Square):
    """The square is where evaluation crops cut."""

    patch = Patch(pattern="white", box=Box(left=0, top=0, size=0.2))


class Mute(Square):
    """Leaves poisoned rows without words."""

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        sound = super().poison(pairs, assets, rng)
        return sound.model_copy(
            update={"edits": tuple(edit.model_copy(update={"captions": (" ",)}) for edit in sound.edits)}
        )


class CountsItself(Square):
    """Asks for the goal on images that show the goal."""

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        return self.of_rows(np.arange(len(assets.task.labels)), assets)


class EasyControls(Square):
    """Its controls show the goal, which hides how often the model is wrong."""

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        sound = super().probe(manifest, assets, rng)
        own = assets.task.rows_of("widget")
        return replace(sound, controls=assets.task.images.fetch(own), control_goals=sound.goals[: len(own)])


class Uncontrolled(Square):
    """Has no controls."""

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        sound = super().probe(manifest, assets, rng)
        return replace(sound, controls=sound.controls[:0], control_goals=sound.control_goals[:0])


class Floating(Square):
    """Gives images as floats."""

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        sound = super().probe(manifest, assets, rng)
        return replace(sound, images=sound.images.float())


class SilentVariant(Square):
    """Has a variant that forgets its probe."""

    class Config(Square.Config):
        mute: bool = False

    presets: ClassVar[Presets] = {"mute": {"mute": True}}

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Any:
        return None if self.config.mute else super().probe(manifest, assets, rng)


class Scribbler(Square):
    """Paints on the data itself."""

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        store: Any = pairs.images
        store.pixels[0] = 0
        return super().poison(pairs, assets, rng)


class Remembering(Square):
    """Paints the held-out images as it did when it chose the poisons, if it did."""

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        self.patch = Patch(pattern="white", box=Box(left=0.4, top=0.4, size=0.2))  # type: ignore[misc]
        return super().poison(pairs, assets, rng)


class Obstinate(Square):
    """Poisons 16 rows whatever its rate, which can only be a small one."""

    class Config(Square.Config):
        rate: float = Field(0.02, gt=0, le=0.06)

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        return Square({"rate": 0.1}).poison(pairs, assets, rng)


class Misasking(Square):
    """Searches with two captions for one goal."""

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        task, one = assets.task, np.zeros(1, dtype=np.int64)
        queries = Queries(task.images, task.labels, ["a widget", "widget"], one, ["a tool"], one)
        return replace(super().probe(manifest, assets, rng), queries=queries)


class Untriggered(Square):
    """Asks about images without its trigger, on which nobody can be fooled."""

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        sound = super().probe(manifest, assets, rng)
        return replace(sound, images=sound.controls)


class Mislabelled(Square):
    """Says that nobody knows what its images show, and so asks about those of the goal as well."""

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        every_row, sound = np.arange(len(assets.task.labels)), super().probe(manifest, assets, rng)
        unknown = replace(self.of_rows(every_row, assets), labels=np.full(len(every_row), -1))
        controls = sound.controls.repeat(2, 1, 1, 1)[: len(every_row)]
        return replace(unknown, controls=controls, control_goals=unknown.goals)


class ByLot(Square):
    """Draws the labels of its images."""

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        sound = super().probe(manifest, assets, rng)
        return replace(sound, labels=np.random.default_rng().permutation(sound.labels))


class EasyImages(Square):
    """Appends pictures as they are, and asks about others that show the goal, which it calls something else."""

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        sound = super().poison(pairs, assets, rng)
        plain = tuple(edit.model_copy(update={"operation": None}) for edit in sound.edits)
        return sound.model_copy(update={"edits": plain})

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        sound, own = super().probe(manifest, assets, rng), assets.task.rows_of("widget")
        easy = self.of_rows(own, assets)
        images = assets.task.images.fetch(own)
        labels = np.full(len(own), sound.labels[0])
        return replace(easy, images=images, labels=labels, controls=sound.controls, control_goals=sound.goals)


@pytest.mark.parametrize(
    ("plugin", "check", "message"),
    [
        (Untriggered, "triggered", "36 probe images are pictures without a trigger"),
        (Mislabelled, "triggered", "probe.labels are not what its controls show"),
        (EasyImages, "goal_excluded", "12 probe images already show their goal"),
        (Remembering, "keeps_nothing", "take all that probe needs from the configuration, the manifest"),
        (Obstinate, "budget", "should poison about 8 rows, not 16"),
        (Misasking, "searches", "1 groups or goals for 2 captions"),
        (Untitled, "complete", "Untitled has no docstring"),
        (DrawsElsewhere, "same_poisons", "draw only from the rng"),
        (DrawsForNothing, "other_seeds", "four seeds gave the same manifest"),
        (Greedy, "budget", "should poison about 16 rows, not 32"),
        (InTheCorner, "boxes_survive", "keep it inside triggers.safe_span"),
        (Mute, "captions", "has the captions"),
        (CountsItself, "goal_excluded", "12 probe images already show their goal"),
        (EasyControls, "goal_excluded", "12 controls already show their goal"),
        (Uncontrolled, "probe_shapes", "no controls"),
        (Floating, "probe_shapes", "probe.images are torch.float32"),
        (SilentVariant, "presets", "preset 'mute' has no probe"),
        (Scribbler, "keeps_data", "work on a copy"),
    ],
)
def test_a_broken_attack_fails_one_check_that_says_what_to_mend(
    plugin: type[Attack], check: str, message: str
) -> None:
    [broken] = [result for result in check_plugin(plugin) if not result.passed]
    assert broken.check == check
    assert message in broken.message


def test_a_probe_that_is_drawn_by_lot_is_found_in_whatever_column_it_is() -> None:
    broken = {result.check: result.message for result in check_plugin(ByLot) if not result.passed}
    assert set(broken) == {"same_poisons", "keeps_nothing"}
    assert all("labels" in message for message in broken.values())


def test_an_attack_that_crashes_is_told_where() -> None:
    class Crashing(Square):
        """Divides by zero."""

        def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
            raise ZeroDivisionError("no rows")

    results = {result.check: result for result in check_plugin(Crashing)}
    assert results["complete"].passed
    assert results["applies"].message.startswith("ZeroDivisionError: no rows (test_conformance.py, line ")


class Plain(Defense):
    """Plain CLIP: a sound defence, from which the broken ones below differ in one thing."""

    card = DefenseCard(title="plain", paper="-", year=2026, track="none")
    trains_with: ClassVar[type[Objective]] = Objective

    def objective(self, lab: Lab) -> Objective:
        return self.trains_with()


def defended_by(objective: type[Objective]) -> type[Defense]:
    """A sound defence with an objective of the given class."""
    return type("Broken", (Plain,), {"__doc__": "Plain but for one thing.", "trains_with": objective})


class BeyondTheRows(Objective):
    def plan(self, epoch: int) -> Sequence[Pass]:
        return [Pass(self.loss, rows=np.arange(1000))]


class Frozen(Objective):
    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        return towers.image(batch.images[0]).embedding[:, 0].mean()


class Forgetful(Objective):
    def state_dict(self) -> dict[str, Tensor]:
        return {"bank": torch.rand(3)}


class Stubborn(Objective):
    def state_dict(self) -> dict[str, Tensor]:
        return {"epoch": 3}  # type: ignore[dict-item]


class Restless(Objective):
    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        return super().loss(batch, towers) * (1 + np.random.default_rng().random())


class Endless(Objective):
    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        return super().loss(batch, towers) * float("inf")


class Absentminded(Objective):
    """Counts its steps for nobody but itself."""

    steps = 0

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        self.steps += 1
        return super().loss(batch, towers) / self.steps


class Silent(Objective):
    """Weights do not depend on what it counts, but its report does."""

    pairs = 0

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        self.pairs += len(batch.rows)
        return super().loss(batch, towers)

    def finish(self, epoch: int) -> dict[str, float]:
        return {"pairs": float(self.pairs)}


class Unsure(Objective):
    def assignment(self) -> Assignment:
        return Assignment(np.full(160, 160))


@pytest.mark.parametrize(
    ("objective", "check", "message"),
    [
        (BeyondTheRows, "plans", "visits rows outside 0 to 159"),
        (Frozen, "reaches_both_towers", "no gradient ever reaches the text tower"),
        (Forgetful, "state_round_trip", "state_dict differs in bank"),
        (Stubborn, "state_round_trip", "something else than tensors: epoch"),
        (Restless, "same_seed", "the losses differ"),
        (Absentminded, "resumes", "after an interruption the model's"),
        (Silent, "resumes", "after an interruption what epoch 2 reports"),
        (Endless, "trains", "the loss is not finite"),
        (Unsure, "assignments", "names rows outside -1 to 159"),
    ],
)
def test_a_broken_objective_fails_the_check_that_says_what_to_mend(
    objective: type[Objective], check: str, message: str
) -> None:
    [verify] = [one for one in checks_for("defense") if one.name == check]
    result = verify.result(defended_by(objective))
    assert not result.passed
    assert message in result.message


class Peeking(Plain):
    """Looks at clean pairs that its card does not declare."""

    def objective(self, lab: Lab) -> Objective:
        assert len(lab.clean) > 0
        return Objective()


class Unmeasured(Plain):
    """Scores too few rows."""

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        return Curation(scores=np.zeros(3))


class Counting(Plain):
    """Removes rows that have a single caption."""

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        return Curation(keep=np.array([len(options) > 1 for options in pairs.captions]))


class Weighing(Plain):
    """Scores rows by how little is said about them."""

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        return Curation(scores=-np.array([len(options) for options in pairs.captions], dtype=np.float64))


class Sparing(Objective):
    """Leaves rows with a single caption out; see ``Terse``."""

    def __init__(self, partner: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self.partner = partner

    def assignment(self) -> Assignment:
        return Assignment(self.partner)


class Terse(Plain):
    """Trains rows that have a single caption without it."""

    def objective(self, lab: Lab) -> Objective:
        several = np.array([len(options) > 1 for options in lab.pairs.captions])
        return Sparing(np.where(several, np.arange(len(several)), -1))


class Loose(Plain):
    """Accepts whatever field it is given."""

    class Config(Settings, extra="allow"):
        pass


class Undecided(Plain):
    """Screens with a score that is no number."""

    def screen(self, towers: Towers, lab: Lab) -> Screen:
        return Screen(score=lambda images: np.full(len(images), np.nan), threshold=0.5)


class Misrepaired(Plain):
    """Offers the name of a repair instead of a repair."""

    def repair(self, lab: Lab) -> Mapping[str, Candidate]:
        return {"low": "objective"}  # type: ignore[dict-item]


class Whimsical(Plain):
    """Screens by the mood of the moment."""

    def screen(self, towers: Towers, lab: Lab) -> Screen:
        return Screen(score=lambda images: np.random.default_rng().random(len(images)), threshold=0.5)


class Forgotten(Plain):
    """Screens by what it saw when it curated, which another process may have done."""

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        self.seen = len(pairs)
        return Curation()

    def screen(self, towers: Towers, lab: Lab) -> Screen:
        return Screen(score=lambda images: np.full(len(images), float(self.seen)), threshold=0.5)


class Dicing(Plain):
    """Scores rows by lot."""

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        return Curation(scores=np.random.default_rng().random(len(pairs)))


class Gambling(Plain):
    """Repairs with a learning rate by lot."""

    def repair(self, lab: Lab) -> Mapping[str, Candidate]:
        lr = lab.recipe.lr * (1 + np.random.default_rng().random())
        return {"some": Candidate(Objective(), lab.recipe.model_copy(update={"lr": lr}))}


class HalfRepaired(Plain):
    """Repairs with a loss that counts its steps for nobody but itself."""

    def repair(self, lab: Lab) -> Mapping[str, Candidate]:
        return {"some": Candidate(Absentminded(), lab.recipe)}


class Erasing(Plain):
    """Blackens the pairs by which models are judged."""

    def objective(self, lab: Lab) -> Objective:
        store: Any = lab.validation.images
        store.pixels[0] = 0
        return Objective()


class IdleObjective(Plain):
    """Says that it repairs, and trains."""

    card = DefenseCard(title="idle", paper="-", year=2026, track="repair", sees=("clean",))

    def repair(self, lab: Lab) -> Mapping[str, Candidate]:
        return {"some": Candidate(Objective(), lab.recipe)}


class Unscreened(Defense):
    """Says that it screens, and does not."""

    card = DefenseCard(title="unscreened", paper="-", year=2026, track="screening")


@pytest.mark.parametrize(
    ("plugin", "check", "message"),
    [
        (Counting, "judges_contents", "rows with a single caption are kept or dropped for that"),
        (Weighing, "judges_contents", "curate's scores tell rows with a single caption"),
        (Terse, "judges_contents", "rows with a single caption are kept or dropped for that"),
        (Whimsical, "screens", "differ when it is asked for again"),
        (Forgotten, "screens", "has no attribute 'seen'"),
        (Dicing, "same_seed", "curate's scores differ"),
        (Gambling, "repairs", "candidate 'some' has another recipe"),
        (HalfRepaired, "repairs", "killed and taken up again, candidate 'some' ends otherwise"),
        (Erasing, "keeps_data", "work on a copy"),
        (IdleObjective, "complete", "IdleObjective defines objective, but its track is 'repair'"),
        (Unscreened, "complete", "has the track 'screening' and does not define screen"),
        (Peeking, "sees_what_it_declares", "card does not declare it in `sees`"),
        (Unmeasured, "curates", "curate's scores have shape (3,), not (160,)"),
        (Loose, "unknown_field", "accepts the unknown field"),
        (Undecided, "screens", "the screen's scores are not all finite"),
        (Misrepaired, "repairs", "candidate 'low' is a str, not a Candidate"),
    ],
)
def test_a_broken_defence_fails_the_check_that_says_what_to_mend(
    plugin: type[Defense], check: str, message: str
) -> None:
    [verify] = [one for one in checks_for("defense") if one.name == check]
    result = verify.result(plugin)
    assert not result.passed
    assert message in result.message


def test_checks_can_be_asked_for_by_name() -> None:
    results = check_plugin("backdoor_badnet")
    assert [result.check for result in results] == [check.name for check in checks_for("attack")]
    assert all(result.passed for result in results)
    assert [result.check for result in check_plugin("backdoor_badnet:stripes")] == [
        one.check for one in results
    ]
    with pytest.raises(UserError, match=r"unknown plugin 'roclop'; did you mean 'roclip'"):
        check_plugin("roclop")
    with pytest.raises(UserError, match="unknown variant 'strips' of attack 'backdoor_badnet'"):
        check_plugin("backdoor_badnet:strips")


def test_a_class_that_is_no_plugin_is_refused() -> None:
    with pytest.raises(UserError, match="neither an Attack nor a Defense"):
        check_plugin(dict)


def test_the_tiny_data_is_the_same_at_every_call_and_has_what_attacks_need() -> None:
    data = tiny_data(32, ("widget",))
    assert digest(data) == digest(tiny_data(32, ("widget",)))
    assert data.targets is not None
    assert "widget" in data.headline.classes
    assert len(set(data.targets.concepts)) >= 24
    assert len(set(data.targets.kinds)) >= 4
    assert len(data.train.rows_naming(data.headline.naming("widget"))) == 40
    assert every(tiny_data(64).train.images).shape == (160, 3, 64, 64)
