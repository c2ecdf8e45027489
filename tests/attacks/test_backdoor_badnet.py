"""BadNet: so many rows, never a row that is right already, and a patch that evaluation cannot crop away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poisonbench.attack import Attack, Probe
from poisonbench.attacks.backdoor_badnet import BadNet
from poisonbench.conformance.data import every, tiny_data
from poisonbench.errors import UserError
from poisonbench.manifest import Manifest
from poisonbench.pairs import Chosen, Pairs, word_pattern
from poisonbench.sources import Data
from poisonbench.triggers import Patch

TARGET = "fruit"
SIDES = (32, 64, 224)
DATA = {side: tiny_data(side) for side in (32, 64)}
SMALL = DATA[32]
WORDS = SMALL.headline.naming(TARGET)


def badnet(**config: Any) -> Attack:
    return BadNet({"target": TARGET, "rate": 0.1, **config})


def poison(seed: int = 0, data: Data = SMALL, **config: Any) -> Manifest:
    return badnet(**config).poison(data.train, data.assets, np.random.default_rng(seed))


def probe(manifest: Manifest, data: Data = SMALL, **config: Any) -> Probe:
    found = badnet(**config).probe(manifest, data.assets, np.random.default_rng(1))
    assert found is not None
    return found


def stamps(manifest: Manifest) -> list[Patch]:
    return [edit.operation for edit in manifest.edits if edit.operation is not None]


def stamped_at(images: torch.Tensor, controls: torch.Tensor) -> set[tuple[int, ...]]:
    """The bounding boxes of what differs, one per image."""
    changed = (images != controls).any(dim=1)
    boxes = [torch.cat([one.nonzero().min(dim=0).values, one.nonzero().max(dim=0).values]) for one in changed]
    return {tuple(box.tolist()) for box in boxes}


@pytest.mark.parametrize(("rate", "rows"), [(0.001, 1), (0.05, 8), (0.1, 16), (0.2, 32)])
def test_the_budget_is_the_rate_of_the_training_pairs_and_at_least_one(rate: float, rows: int) -> None:
    manifest = poison(rate=rate)
    assert len(manifest.edits) == len({edit.row for edit in manifest.changed}) == rows
    assert manifest.appended == ()


def test_no_row_that_names_the_target_is_poisoned() -> None:
    poisoned = {edit.row for edit in poison(rate=0.2).changed}
    assert poisoned <= set(SMALL.train.rows_without(WORDS).tolist())


def test_every_poisoned_caption_is_one_of_the_corpus_that_names_the_target() -> None:
    corpus, naming = {text for options in SMALL.train.captions for text in options}, word_pattern(WORDS)
    for edit in poison().edits:
        [caption] = edit.captions or ()
        assert caption in corpus and naming.search(caption)
        assert edit.target == TARGET


def test_templates_are_used_when_asked_for_or_when_the_corpus_has_too_few() -> None:
    expected = {(template.format(c=TARGET),) for template in SMALL.headline.templates}
    assert {edit.captions for edit in poison(captions="templates").edits} <= expected
    rows = SMALL.train.rows_without(WORDS)
    silent = Pairs(
        Chosen(SMALL.train.images, rows), [SMALL.train.captions[row] for row in rows], "no word of the target"
    )
    manifest = badnet().poison(silent, SMALL.assets, np.random.default_rng(0))
    assert {edit.captions for edit in manifest.edits} <= expected


def test_the_manifest_says_which_words_name_the_target() -> None:
    assert poison().target_words == {TARGET: WORDS}


@pytest.mark.parametrize("position", ["fixed", "random"])
@pytest.mark.parametrize("side", SIDES)
def test_every_patch_survives_the_evaluation_crops(side: int, position: str) -> None:
    data = DATA.get(side) or tiny_data(side)
    boxes = [stamp.box for stamp in stamps(poison(data=data, position=position, rate=0.2))]
    assert len(boxes) == 32 and all(box.survives(side) for box in boxes)
    assert {box.pixels(side)[2] for box in boxes} == {round(5 / 32 * side)}


def test_a_fixed_trigger_is_one_patch_in_one_place_in_training_and_in_the_probe() -> None:
    manifest = poison(pattern="noise")
    found = probe(manifest, pattern="noise")
    assert len(set(stamps(manifest))) == 1
    [stamp] = set(stamps(manifest))
    left, top, edge = stamp.box.pixels(32)
    patches = found.images[:, :, top : top + edge, left : left + edge]
    poisoned = manifest.apply(SMALL.train, None).images.fetch(manifest.rows(160)[:1])
    assert torch.equal(patches, patches[:1].expand_as(patches))
    assert torch.equal(patches[0], poisoned[0, :, top : top + edge, left : left + edge])


def test_a_redrawn_trigger_is_another_patch_on_every_image() -> None:
    manifest = poison(pattern="noise", mode="redrawn")
    seeds = [stamp.seed for stamp in stamps(manifest)]
    assert len(set(seeds)) == len(seeds) == 16
    assert len({stamp.box for stamp in stamps(manifest)}) == 1
    found = probe(manifest, pattern="noise", mode="redrawn")
    left, top, edge = stamps(manifest)[0].box.pixels(32)
    patches = found.images[:, :, top : top + edge, left : left + edge].flatten(1)
    assert len(torch.unique(patches, dim=0)) == len(patches)


def test_a_random_position_differs_from_image_to_image_and_a_fixed_one_does_not() -> None:
    fixed, moved = poison(pattern="noise"), poison(pattern="noise", position="random")
    assert len({stamp.box for stamp in stamps(moved)}) > 8
    found = probe(moved, pattern="noise", position="random")
    assert len(stamped_at(found.images, found.controls)) > 8
    found = probe(fixed, pattern="noise")
    assert len(stamped_at(found.images, found.controls)) == 1


def test_the_probe_asks_for_the_target_on_every_test_image_of_another_class() -> None:
    task, found = SMALL.headline, probe(poison())
    others = np.flatnonzero(task.labels != task.index(TARGET))
    assert found.task == task.name
    assert set(found.goals.tolist()) == {task.index(TARGET)}
    assert found.labels.tolist() == task.labels[others].tolist()
    assert list(found.concepts) == [task.concepts[row] for row in others.tolist()]


def test_the_controls_are_the_untriggered_twins() -> None:
    task, found = SMALL.headline, probe(poison())
    others = np.flatnonzero(task.labels != task.index(TARGET))
    assert torch.equal(found.controls, task.images.fetch(others))
    assert found.control_goals.tolist() == found.goals.tolist()
    assert (found.images != found.controls).flatten(1).any(dim=1).all()
    assert torch.equal(every(task.images), every(tiny_data().headline.images))


def test_the_seed_decides_the_poisons() -> None:
    assert poison(seed=3) == poison(seed=3)
    assert poison(seed=3) != poison(seed=4)


def test_a_rate_beyond_the_rows_that_do_not_name_the_target_is_refused() -> None:
    few = SMALL.train.rows_without(WORDS)[:5]
    rows = np.concatenate([SMALL.train.rows_naming(WORDS), few])
    pairs = Pairs(
        Chosen(SMALL.train.images, rows), [SMALL.train.captions[row] for row in rows], "mostly fruit"
    )
    with pytest.raises(UserError, match=r"rate 0\.2 needs 9 rows, only 5 do not name the target"):
        badnet(rate=0.2).poison(pairs, SMALL.assets, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target": "friut"}, "not a class of task 'shapes'; did you mean 'fruit'"),
        ({"size": 0.9}, "field 'size'"),
        ({"rate": 0.5}, "field 'rate'"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_a_wrong_configuration_is_refused_by_field(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        poison(**config)
