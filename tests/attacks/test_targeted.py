"""Targeted images: every target is taught a class that it does not show, and is judged against its own kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from poisonbench.attack import Probe
from poisonbench.attacks.targeted import Targeted
from poisonbench.conformance.data import ODD, tiny_data
from poisonbench.errors import UserError
from poisonbench.manifest import Manifest
from poisonbench.pairs import word_pattern
from poisonbench.tasks import Assets, TargetArt

DATA = tiny_data()
TASK = DATA.headline
assert DATA.targets is not None
ART: TargetArt = DATA.targets


def poison(seed: int = 0, assets: Assets = DATA.assets, **config: Any) -> Manifest:
    return Targeted(config).poison(DATA.train, assets, np.random.default_rng(seed))


def probe(manifest: Manifest, assets: Assets = DATA.assets) -> Probe:
    return Targeted().probe(manifest, assets, np.random.default_rng(1))


MANIFEST = poison()
PROBE = probe(MANIFEST)


def target_rows(manifest: Manifest) -> dict[int, int]:
    """Group to the art that it poisons."""
    return {edit.group: edit.picture.index for edit in manifest.edits}


def twins(art: TargetArt) -> TargetArt:
    """The same art where each picture is drawn twice."""
    return replace(art, concepts=[f"target {row // 2}" for row in range(len(art.concepts))])


def test_there_are_at_least_sixteen_targets_with_ten_added_pairs_each() -> None:
    groups = Counter(edit.group for edit in MANIFEST.edits)
    assert len(groups) >= 16 and set(groups.values()) == {10}
    assert MANIFEST.changed == ()
    assert len(PROBE.images) == len(groups)


@pytest.mark.parametrize("seed", range(12))
def test_no_adversarial_class_is_used_again_before_all_others_are(seed: int) -> None:
    goals = {edit.group: edit.target for edit in poison(seed, targets=4).edits}
    assert len(set(goals.values())) >= 3, (
        "four classes for four targets, of which the last may show the class that is left"
    )


@pytest.mark.parametrize(("targets", "captions"), [(1, 1), (5, 3), (20, 2)])
def test_the_budget_can_be_chosen(targets: int, captions: int) -> None:
    manifest = poison(targets=targets, captions=captions)
    assert Counter(edit.group for edit in manifest.edits) == dict.fromkeys(range(targets), captions)


def test_a_targets_pairs_show_the_same_unchanged_held_out_image() -> None:
    shown = {(edit.group, edit.picture.source, edit.picture.index) for edit in MANIFEST.edits}
    assert len(shown) == 16 and {source for _, source, _ in shown} == {"target"}
    poisoned = MANIFEST.apply(DATA.train, ART)
    appended = poisoned.images.fetch(MANIFEST.rows(len(DATA.train)))
    rows = np.array([edit.picture.index for edit in MANIFEST.edits])
    assert torch.equal(appended, ART.images.fetch(rows))


@pytest.mark.parametrize("seed", range(8))
def test_the_goal_is_never_what_the_target_shows(seed: int) -> None:
    manifest = poison(seed)
    assert all(edit.target != ART.kinds[edit.picture.index] for edit in manifest.edits)
    found = probe(manifest)
    assert (found.goals != found.labels).all()


def test_goals_are_spread_over_the_classes() -> None:
    assert {edit.target for edit in MANIFEST.edits} == set(TASK.classes)


def test_the_captions_are_the_corpus_own_that_name_the_goal() -> None:
    corpus = {text for options in DATA.train.captions for text in options}
    for edit in MANIFEST.edits:
        [caption] = edit.captions or ()
        assert caption in corpus
        assert word_pattern(TASK.naming(edit.target)).search(caption)
        assert MANIFEST.target_words[edit.target] == TASK.naming(edit.target)


def test_captions_repeat_only_when_the_corpus_has_too_few() -> None:
    few, many = poison(captions=5), poison(targets=1, captions=200)
    assert set(Counter((edit.group, edit.captions) for edit in few.edits).values()) == {1}
    assert len(many.edits) == 200 > len({edit.captions for edit in many.edits})


def test_the_probe_shows_the_targets_as_they_were_poisoned() -> None:
    rows = np.array(list(target_rows(MANIFEST).values()))
    goals = {edit.group: edit.target for edit in MANIFEST.edits}
    assert torch.equal(PROBE.images, ART.images.fetch(rows))
    assert [TASK.classes[goal] for goal in PROBE.goals] == list(goals.values())
    assert list(PROBE.concepts) == [ART.concepts[row] for row in rows]
    kinds = [ART.kinds[row] for row in rows]
    assert ODD in kinds
    assert PROBE.labels.tolist() == [TASK.classes.index(k) if k in TASK.classes else -1 for k in kinds]


@pytest.mark.parametrize("art", [ART, twins(ART)], ids=["all different", "twins"])
def test_controls_share_the_kind_of_a_target_and_never_the_concept(art: TargetArt) -> None:
    assets = Assets(TASK, art)
    manifest = poison(assets=assets, targets=8, captions=1)
    found = probe(manifest, assets)
    poisoned = {art.concepts[edit.picture.index] for edit in manifest.edits}
    assert len(poisoned) == 8, "no concept is poisoned twice"
    expected = [
        (row, TASK.index(edit.target))
        for edit in manifest.edits
        for row in range(len(art.images))
        if art.kinds[row] == art.kinds[edit.picture.index] and art.concepts[row] not in poisoned
    ]
    assert expected
    assert torch.equal(found.controls, art.images.fetch(np.array([row for row, _ in expected])))
    assert found.control_goals.tolist() == [goal for _, goal in expected]
    assert all(art.kinds[row] != TASK.classes[goal] for row, goal in expected)


def test_only_the_chosen_classes_are_goals() -> None:
    assert {edit.target for edit in poison(classes=("tool", "animal")).edits} == {"tool", "animal"}


def test_the_seed_decides_the_poisons() -> None:
    assert poison(seed=3) == poison(seed=3)
    assert poison(seed=3) != poison(seed=4)


@pytest.mark.parametrize(
    ("assets", "config", "message"),
    [
        (DATA.assets, {"targets": 41}, "41 targets were asked for, but the data has art for 40"),
        (Assets(TASK, twins(ART)), {"targets": 21}, "but the data has art for 20"),
        (Assets(TASK, None), {}, "needs held-out target images.*use --eval clipart"),
        (DATA.assets, {"classes": ("toool",)}, "not a class of task 'shapes'; did you mean 'tool'"),
        (DATA.assets, {"target": "tool"}, "unknown field 'target'; did you mean 'targets'"),
    ],
)
def test_what_the_data_cannot_carry_is_refused(assets: Assets, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        poison(assets=assets, **config)


def test_a_corpus_that_names_no_class_is_refused() -> None:
    mute = replace(DATA.train, captions=[("nothing",)] * len(DATA.train))
    with pytest.raises(UserError, match="no training caption names a class of task 'shapes'"):
        Targeted().poison(mute, DATA.assets, np.random.default_rng(0))


def test_varied_copies_are_all_different_pictures_and_the_probe_still_shows_the_target() -> None:
    exact, varied = poison(targets=3), poison(targets=3, vary="augment")
    images = varied.apply(DATA.train, ART).images.fetch(varied.rows(len(DATA.train)))
    assert len(torch.unique(images.flatten(1), dim=0)) == len(images) == 30
    assert target_rows(varied) == target_rows(exact)
    assert torch.equal(probe(varied).images, probe(exact).images)
