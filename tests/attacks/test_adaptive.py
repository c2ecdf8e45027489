"""The attacks that know OTCCLIP: a surrogate chooses poisons that fit, within the budget and with nothing but the pairs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from poisonbench.attacks.backdoor_adaptive import BackdoorAdaptive, couples, fits
from poisonbench.attacks.backdoor_badnet import BadNet
from poisonbench.attacks.surrogate import Surrogate
from poisonbench.attacks.targeted import Targeted
from poisonbench.attacks.targeted_adaptive import TargetedAdaptive, paraphrases
from poisonbench.conformance.data import tiny_data
from poisonbench.errors import UserError
from poisonbench.manifest import Manifest, painted
from poisonbench.naming import class_captions
from poisonbench.pairs import Pairs, word_pattern
from poisonbench.tasks import Assets, TargetArt

TARGET = "fruit"
DATA = tiny_data()
TASK = DATA.headline
assert DATA.targets is not None
ART: TargetArt = DATA.targets
QUICK: dict[str, Any] = {"epochs": 2}


class Forbidden:
    """Images that nobody may look at."""

    side = 32

    def __len__(self) -> int:
        return len(TASK.images)

    def fetch(self, rows: Any) -> torch.Tensor:
        raise AssertionError("the attack looked at the pictures of the evaluation")


ASSETS = Assets(replace(TASK, images=Forbidden()), ART)


def targeted(**config: Any) -> TargetedAdaptive:
    return TargetedAdaptive({"targets": 4, "captions": 4, **QUICK, **config})


def backdoor(**config: Any) -> BackdoorAdaptive:
    return BackdoorAdaptive({"target": TARGET, "rate": 0.1, **QUICK, **config})


@cache
def surrogate() -> Surrogate:
    """One that all tests choose by, trained once."""
    return targeted(epochs=10).surrogate(DATA.train, np.random.default_rng(0))


def poison(attack: Any, seed: int = 0) -> Manifest:
    found: Manifest = attack.poison(DATA.train, ASSETS, np.random.default_rng(seed))
    return found


@pytest.fixture(name="_at_hand")
def surrogate_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks find their surrogate trained."""
    for attack in (TargetedAdaptive, BackdoorAdaptive):
        monkeypatch.setattr(attack, "surrogate", lambda *_: surrogate())


at_hand = pytest.mark.usefixtures("_at_hand")


@pytest.fixture(name="_two_threads")
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def texts(manifest: Manifest, group: int) -> list[str]:
    return [text for edit in manifest.edits if edit.group == group for text in edit.captions or ()]


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def costs(manifest: Manifest) -> list[float]:
    """Per target, the mean transport cost of its picture to its captions."""
    pictures = {edit.group: edit.picture.index for edit in manifest.edits}
    return [
        float(surrogate().distances(ART.images.fetch(np.array([row])), texts(manifest, group)).mean())
        for group, row in pictures.items()
    ]


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("attack", [targeted(pool=2), backdoor()], ids=["targeted", "backdoor"])
def test_the_same_seed_gives_the_same_poisons_bit_for_bit_whatever_the_process_has_drawn(attack: Any) -> None:
    first = poison(attack, seed=3)
    torch.set_num_threads(1)
    torch.manual_seed(11)
    assert poison(attack, seed=3).model_dump_json() == first.model_dump_json()


@pytest.mark.usefixtures("_two_threads")
def test_training_a_surrogate_leaves_the_process_as_it_was() -> None:
    state = torch.get_rng_state()
    targeted().surrogate(DATA.train, np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == 2


def test_an_attacker_who_holds_few_pairs_knows_few_words() -> None:
    few = targeted(held=6).surrogate(DATA.train, np.random.default_rng(0))
    assert few.towers.tokenizer.size < surrogate().towers.tokenizer.size


def test_pictures_of_any_side_are_judged_alike_since_they_are_scaled_to_the_surrogates() -> None:
    captions = class_captions(DATA.train, TASK, TARGET)
    large = tiny_data(64).targets
    assert large is not None
    at_32, at_64 = (surrogate().distances(art.images.fetch(np.arange(40)), captions) for art in (ART, large))
    assert float(torch.corrcoef(torch.stack([at_32.flatten(), at_64.flatten()]))[0, 1]) > 0.9


def test_pairs_of_another_side_train_a_surrogate_too() -> None:
    large = tiny_data(64)
    manifest = targeted(epochs=1).poison(large.train, large.assets, np.random.default_rng(0))
    assert Counter(edit.group for edit in manifest.edits) == dict.fromkeys(range(4), 4)


def test_a_surrogate_that_open_clip_does_not_know_is_refused() -> None:
    with pytest.raises(
        UserError, match="field 'surrogate': open_clip has no model 'RN51'; did you mean 'RN50'"
    ):
        poison(targeted(surrogate="RN51"))


@at_hand
@pytest.mark.parametrize("pool", [1, 3])
def test_the_budget_of_targeted_is_kept(pool: int) -> None:
    manifest = poison(targeted(pool=pool))
    assert Counter(edit.group for edit in manifest.edits) == dict.fromkeys(range(4), 4)
    assert manifest.changed == ()
    assert all(edit.target != ART.kinds[edit.picture.index] for edit in manifest.edits)


@at_hand
def test_the_targets_and_their_classes_are_those_that_targeted_draws() -> None:
    drawn = Targeted({"targets": 4, "captions": 4}).poison(DATA.train, ASSETS, np.random.default_rng(5))
    chosen = poison(targeted(), seed=5)
    for one, other in zip(drawn.edits, chosen.edits, strict=True):
        assert one.model_copy(update={"captions": None}) == other.model_copy(update={"captions": None})
    assert drawn.target_words == chosen.target_words


@at_hand
def test_a_target_gets_distinct_paraphrases_of_the_corpus_that_name_its_class() -> None:
    manifest = poison(targeted())
    for group in range(4):
        found, target = texts(manifest, group), manifest.edits[4 * group].target
        assert len({words(text) for text in found}) == 4
        assert set(found) <= set(class_captions(DATA.train, TASK, target))


@at_hand
def test_no_other_captions_of_the_class_are_nearer_to_a_target() -> None:
    manifest = poison(targeted())
    drawn = Targeted({"targets": 4, "captions": 4}).poison(DATA.train, ASSETS, np.random.default_rng(0))
    assert all(mine < theirs for mine, theirs in zip(costs(manifest), costs(drawn), strict=True))
    for group in range(4):
        edit = manifest.edits[4 * group]
        rest = set(class_captions(DATA.train, TASK, edit.target)) - set(texts(manifest, group))
        kept = {words(text) for text in texts(manifest, group)}
        others = [text for text in sorted(rest) if words(text) not in kept]
        image = ART.images.fetch(np.array([edit.picture.index]))
        farthest = surrogate().distances(image, texts(manifest, group)).max()
        assert farthest <= surrogate().distances(image, others).min() + 1e-4


@at_hand
def test_with_a_pool_the_easiest_targets_are_kept_and_those_won_anyway_come_last() -> None:
    considered, kept = poison(targeted(targets=12)), poison(targeted(targets=4, pool=3))
    rows, goals = zip(
        *{edit.group: (edit.picture.index, edit.target) for edit in considered.edits}.values(), strict=True
    )
    won = [taken_for(row) == goal for row, goal in zip(rows, goals, strict=True)]
    easiest = sorted(zip(won, costs(considered), rows, strict=True))[:4]
    assert {edit.picture.index for edit in kept.edits} == {row for _, _, row in easiest}


def taken_for(row: int) -> str:
    """The class that the surrogate gives to a picture."""
    image = ART.images.fetch(np.array([row]))
    prompts = [template.format(c=name) for name in TASK.classes for template in TASK.templates]
    cost = surrogate().distances(image, prompts).view(len(TASK.classes), -1).mean(dim=1)
    return TASK.classes[int(cost.argmin())]


def test_templates_join_the_captions_of_a_class_that_has_too_few() -> None:
    few = ["a picture of a fruit", "A fruit, of a picture", "a red balo0"]
    assert paraphrases(few, 2, TASK, TARGET) == ["a picture of a fruit", "a red balo0"]
    more = paraphrases(few, 8, TASK, TARGET)
    assert more[:2] == ["a picture of a fruit", "a red balo0"] and len(more) == 8
    assert all(word_pattern(TASK.naming(TARGET)).search(text) for text in more)


@at_hand
@pytest.mark.parametrize(("rate", "rows"), [(0.001, 1), (0.1, 16), (0.2, 32)])
def test_the_budget_is_the_rate_and_every_poison_is_a_wrong_pair(rate: float, rows: int) -> None:
    manifest = poison(backdoor(rate=rate))
    named = set(DATA.train.rows_naming(TASK.naming(TARGET)).tolist())
    assert len({edit.row for edit in manifest.changed}) == len(manifest.edits) == rows
    assert not named & {edit.row for edit in manifest.changed}
    corpus = set(class_captions(DATA.train, TASK, TARGET))
    assert {text for edit in manifest.edits for text in edit.captions or ()} <= corpus


@at_hand
def test_a_rate_beyond_the_rows_that_may_be_taken_is_refused() -> None:
    captions = [("a picture of a fruit",)] * 150 + list(DATA.train.captions[150:])
    full = Pairs(DATA.train.images, captions, "nearly all fruit")
    with pytest.raises(UserError, match=r"rate 0.2 needs 32 rows, only \d+ do not name the target"):
        backdoor(rate=0.2).poison(full, ASSETS, np.random.default_rng(0))


@at_hand
@pytest.mark.parametrize("judged", ["patched", "clean"])
def test_the_pairs_of_a_backdoor_fit_better_than_badnets(judged: str) -> None:
    chosen = poison(backdoor(judged=judged))
    drawn = poison(BadNet({"target": TARGET, "rate": 0.1}))
    assert fitting(chosen, judged) > fitting(drawn, judged) + 0.5


@at_hand
def test_the_trigger_is_badnets_in_training_and_at_test() -> None:
    attack = backdoor(pattern="noise", mode="redrawn")
    manifest = poison(attack)
    assert len({edit.operation for edit in manifest.edits}) == 16, (
        "every row has the patch that was drawn for it"
    )
    [planted] = {edit.operation for edit in poison(backdoor()).edits}
    found = backdoor().probe(poison(backdoor()), DATA.assets, np.random.default_rng(1))
    assert planted is not None and torch.equal(found.images, planted.paint(found.controls))


def test_couples_take_the_best_pairs_every_row_once_and_the_columns_evenly() -> None:
    fit = torch.tensor([[9.0, 1.0], [8.0, 2.0], [7.0, 6.0], [0.0, 5.0]])
    assert couples(fit, 1) == [(0, 0)]
    assert couples(fit, 2) == [(0, 0), (2, 1)], "the second best of column 0 has to wait"
    assert couples(fit, 4) == [(0, 0), (1, 0), (2, 1), (3, 1)]


def fitting(manifest: Manifest, judged: str) -> float:
    """The mean fit of the poisoned pairs, in standard deviations."""
    images = DATA.train.images.fetch(np.array([edit.row for edit in manifest.edits]))
    if judged == "patched":
        images = painted(images, [edit.operation for edit in manifest.edits if edit.operation])
    captions = [text for edit in manifest.edits for text in edit.captions or ()]
    return float(fits(surrogate(), images, captions, DATA.train, np.random.default_rng(9)).diagonal().mean())
