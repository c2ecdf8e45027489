"""mmPoison: captions of A meet pictures of B, and success is a picture of B that is taken for an A."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from poisonbench.attack import Probe
from poisonbench.attacks.text_mmpoison import MMPoison
from poisonbench.conformance.data import tiny_data
from poisonbench.errors import UserError
from poisonbench.evaluation.attack_probe import check_probe
from poisonbench.manifest import Manifest
from poisonbench.tasks import Assets

DATA = tiny_data()
TASK = DATA.headline
ONE_MAP = {"targets": ("fruit",), "victims": ("tool",)}
TWO_MAPS = {"targets": ("fruit", "animal"), "victims": ("tool", "vehicle")}


def poison(seed: int = 0, assets: Assets = DATA.assets, **config: Any) -> Manifest:
    return MMPoison({**ONE_MAP, **config}).poison(DATA.train, assets, np.random.default_rng(seed))


def probe(manifest: Manifest, **config: Any) -> Probe:
    found = MMPoison({**ONE_MAP, **config}).probe(manifest, DATA.assets, np.random.default_rng(1))
    check_probe(found, [TASK])
    return found


def rows_of(name: str) -> set[int]:
    return set(DATA.train.rows_naming(TASK.naming(name)).tolist())


def test_every_row_that_names_a_gets_a_picture_of_b_and_keeps_its_caption() -> None:
    manifest = poison(victim_rows="kept")
    assert {edit.row for edit in manifest.edits} == rows_of("fruit")
    assert {edit.picture.index for edit in manifest.edits} <= rows_of("tool")
    assert manifest.apply(DATA.train, DATA.targets).captions == list(DATA.train.captions)
    assert all(edit.operation is None and edit.target == "fruit" for edit in manifest.edits)


def test_rows_of_b_keep_their_pictures_and_get_captions_of_a() -> None:
    poisoned = (manifest := poison()).apply(DATA.train, DATA.targets)
    assert {edit.row for edit in manifest.edits} == rows_of("fruit") | rows_of("tool")
    spoken = {DATA.train.captions[row] for row in rows_of("fruit")}
    for row in sorted(rows_of("tool")):
        assert poisoned.captions[row] in spoken
        assert torch.equal(poisoned.images.fetch(np.array([row])), DATA.train.images.fetch(np.array([row])))


def test_maps_that_leave_each_other_no_rows_are_refused() -> None:
    wide = (*TASK.words["fruit"], "animal", *TASK.words["animal"])
    assets = replace(DATA.assets, task=replace(TASK, words={**TASK.words, "fruit": wide}))
    maps = {"targets": ("fruit", "animal"), "victims": ("tool", "vehicle"), "victim_rows": "kept"}
    with pytest.raises(UserError, match="every row that names 'animal' belongs to another map"):
        poison(assets=assets, **maps)


def test_one_picture_leaves_the_rows_of_b_alone() -> None:
    assert {edit.row for edit in poison(picture="one").edits} == rows_of("fruit")


def test_the_pictures_of_b_are_used_in_turn() -> None:
    used = Counter(edit.picture.index for edit in poison(victim_rows="kept").edits)
    assert set(used) == rows_of("tool")
    assert max(used.values()) - min(used.values()) <= 1


@pytest.mark.parametrize(("share", "rows"), [(0.01, 1), (0.25, 10), (1.0, 40)])
def test_the_budget_is_a_share_of_class_a(share: float, rows: int) -> None:
    assert len(rows_of("fruit")) == 40
    assert len(poison(share=share, victim_rows="kept").edits) == rows


def test_one_picture_takes_the_place_of_all() -> None:
    manifest = poison(picture="one")
    assert DATA.targets is not None
    [chosen] = {edit.picture.index for edit in manifest.edits}
    assert DATA.targets.kinds[chosen] == "tool"
    found = probe(manifest, picture="one")
    assert torch.equal(found.images, DATA.targets.images.fetch(np.array([chosen])))
    assert found.goals.tolist() == [TASK.index("fruit")] and found.labels.tolist() == [TASK.index("tool")]
    assert torch.equal(found.controls, TASK.images.fetch(TASK.rows_of("tool")))
    assert found.queries is not None and len(found.queries.gallery) == len(TASK.images) + 1
    assert set(found.queries.goals.tolist()) == {found.queries.groups[-1]} == {len(TASK.classes)}


def test_pictures_of_b_should_be_taken_for_a_and_other_classes_are_the_controls() -> None:
    found = probe(poison())
    assert torch.equal(found.images, TASK.images.fetch(TASK.rows_of("tool")))
    assert set(found.goals.tolist()) == set(found.control_goals.tolist()) == {TASK.index("fruit")}
    others = np.flatnonzero(~np.isin(TASK.labels, [TASK.index("tool"), TASK.index("fruit")]))
    assert torch.equal(found.controls, TASK.images.fetch(others))


def test_two_maps_poison_no_row_twice_and_each_victim_has_its_own_goal() -> None:
    manifest = poison(**TWO_MAPS)
    assert {edit.group for edit in manifest.edits} == {0, 1}
    assert len({edit.row for edit in manifest.edits}) == len(manifest.edits)
    found = probe(manifest, **TWO_MAPS)
    goals = {
        (TASK.classes[label], TASK.classes[goal])
        for label, goal in zip(found.labels, found.goals, strict=True)
    }
    assert goals == {("tool", "fruit"), ("vehicle", "animal")}


def test_the_searches_name_a_and_their_controls_name_neither() -> None:
    queries = probe(poison()).queries
    assert queries is not None
    words, others = TASK.naming("fruit"), ("animal", "vehicle")
    assert list(queries.captions) == [f"a picture of a {word}." for word in words]
    assert list(queries.controls) == [f"a picture of a {word}." for word in others]
    assert {TASK.classes[goal] for goal in (*queries.goals, *queries.control_goals)} == {"tool"}
    assert queries.groups.tolist() == TASK.labels.tolist()


def test_the_seed_decides_who_meets_whom() -> None:
    assert poison(seed=3) == poison(seed=3)
    assert poison(seed=3) != poison(seed=4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"victims": ("tool", "animal")}, "targets and victims must be as many"),
        ({"victims": ("fruit",)}, "no class may be named twice"),
        ({"victims": ("tol",)}, "not a class of task 'shapes'; did you mean 'tool'"),
        ({"share": 0}, "field 'share'"),
        ({"rate": 0.1}, "unknown field 'rate'"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        poison(**config)
    assert "\n" not in str(caught.value)


def test_what_the_data_cannot_carry_is_refused() -> None:
    with pytest.raises(UserError, match=r"held-out pictures.*--set attack\.picture=class"):
        poison(assets=Assets(TASK, None), picture="one")
    assert DATA.targets is not None
    odd = replace(DATA.targets, kinds=["gadget"] * len(DATA.targets.kinds))
    with pytest.raises(UserError, match="no held-out picture of 'tool'"):
        poison(assets=Assets(TASK, odd), picture="one")
    mute = replace(DATA.train, captions=[("nothing",)] * len(DATA.train))
    with pytest.raises(UserError, match="no training caption names 'fruit'"):
        MMPoison(ONE_MAP).poison(mute, DATA.assets, np.random.default_rng(0))
