"""What every backdoor shares: its budget, its wrong captions, and the same trigger at test as in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poisonbench.attack import Attack, Probe
from poisonbench.attacks.backdoor_blended import Blended
from poisonbench.attacks.backdoor_filter import PhotoFilter
from poisonbench.attacks.backdoor_label_consistent import LabelConsistent
from poisonbench.attacks.backdoor_sig import Sig
from poisonbench.attacks.backdoor_wanet import WaNet
from poisonbench.conformance.data import tiny_data
from poisonbench.errors import UserError
from poisonbench.manifest import Manifest
from poisonbench.pairs import word_pattern
from poisonbench.triggers import Blend, Patch, Sinusoid, Tone, Warp

TARGET = "fruit"
DATA = tiny_data()
WORDS = DATA.headline.naming(TARGET)
NAMED = set(DATA.train.rows_naming(WORDS).tolist())
GLOBAL: list[tuple[type[Attack], dict[str, Any]]] = [
    (attack, dict(fields))
    for attack in (Blended, Sig, WaNet, PhotoFilter)
    for fields in ({}, *attack.presets.values())
]
each_variant = pytest.mark.parametrize(("attack", "fields"), GLOBAL)


def made(attack: type[Attack], **fields: Any) -> Attack:
    return attack({"target": TARGET, "rate": 0.1, **fields})


def poison(attack: Attack, seed: int = 0) -> Manifest:
    return attack.poison(DATA.train, DATA.assets, np.random.default_rng(seed))


def probe(attack: Attack, manifest: Manifest, seed: int = 1) -> Probe:
    found = attack.probe(manifest, DATA.assets, np.random.default_rng(seed))
    assert found is not None
    return found


def operations(manifest: Manifest) -> list[Any]:
    return [edit.operation for edit in manifest.edits]


@each_variant
def test_the_budget_is_the_rate_and_every_poison_is_a_wrong_pair(
    attack: type[Attack], fields: dict[str, Any]
) -> None:
    manifest = poison(made(attack, **fields))
    assert len({edit.row for edit in manifest.changed}) == len(manifest.edits) == 16
    assert not NAMED & {edit.row for edit in manifest.changed}
    for edit in manifest.edits:
        [caption] = edit.captions or ()
        assert word_pattern(WORDS).search(caption)


@each_variant
def test_every_test_image_of_another_class_is_changed_and_the_controls_are_not(
    attack: type[Attack], fields: dict[str, Any]
) -> None:
    one = made(attack, **fields)
    found, task = probe(one, poison(one)), DATA.headline
    others = np.flatnonzero(task.labels != task.index(TARGET))
    assert torch.equal(found.controls, task.images.fetch(others))
    assert (found.images != found.controls).flatten(1).any(dim=1).all()


@pytest.mark.parametrize(("attack", "fields"), [one for one in GLOBAL if one[1].get("mode") != "redrawn"])
def test_a_fixed_trigger_is_the_same_on_every_image_in_training_and_at_test(
    attack: type[Attack], fields: dict[str, Any]
) -> None:
    one = made(attack, **fields)
    manifest = poison(one)
    [planted] = set(operations(manifest))
    found = probe(one, manifest)
    assert torch.equal(found.images, planted.paint(found.controls))


def test_noise_is_drawn_anew_for_every_image() -> None:
    one = made(Blended, picture="noise", mode="redrawn")
    manifest = poison(one)
    assert len({operation.seed for operation in operations(manifest)}) == 16
    found = probe(one, manifest)
    added = (found.images.float() - 0.8 * found.controls.float()).round().flatten(1)
    assert len(torch.unique(added, dim=0)) == len(added)


def test_every_attack_paints_its_own_trigger() -> None:
    kinds = [type(operations(poison(made(attack)))[0]) for attack in (Blended, Sig, WaNet, PhotoFilter)]
    assert kinds == [Blend, Sinusoid, Warp, Tone]


def test_the_fields_reach_the_trigger() -> None:
    [blend, *_] = operations(poison(made(Blended, picture="triangles", ratio=0.15)))
    assert (blend.picture, blend.ratio) == ("triangles", 0.15)
    [wave, *_] = operations(poison(made(Sig, amplitude=0.1, cycles=4, dim=0.2)))
    assert (wave.amplitude, wave.cycles, wave.dim) == (0.1, 4, 0.2)
    [tone, *_] = operations(poison(made(PhotoFilter, strength=0.5)))
    assert tone.strength == 0.5


@pytest.mark.parametrize(
    ("fields", "cells", "shift"), [({}, 224, 1 / 448), (WaNet.presets["smooth"], 4, 1 / 128)]
)
def test_wanet_has_both_published_forms(fields: dict[str, Any], cells: int, shift: float) -> None:
    [warp, *_] = operations(poison(made(WaNet, **fields)))
    assert (warp.cells, warp.shift) == (cells, pytest.approx(shift))


def test_the_seed_decides_the_field_of_the_warp() -> None:
    assert operations(poison(made(WaNet), 1))[0].seed != operations(poison(made(WaNet), 2))[0].seed


def label_consistent(**fields: Any) -> Attack:
    return made(LabelConsistent, **fields)


def test_label_consistent_poisons_are_right_pairs_with_a_patch() -> None:
    manifest = poison(label_consistent())
    assert len(manifest.edits) == 16
    assert {edit.row for edit in manifest.changed} <= NAMED
    assert all(edit.captions is None and isinstance(edit.operation, Patch) for edit in manifest.edits)
    assert manifest.apply(DATA.train, DATA.targets).captions == list(DATA.train.captions)


def test_label_consistent_takes_all_rows_that_name_the_target_where_the_rate_asks_for_more() -> None:
    few = DATA.train.rows_naming(WORDS)[5:]
    captions = [("nothing",) if row in few else texts for row, texts in enumerate(DATA.train.captions)]
    pairs = type(DATA.train)(DATA.train.images, captions, "few")
    manifest = label_consistent().poison(pairs, DATA.assets, np.random.default_rng(0))
    assert {edit.row for edit in manifest.changed} == set(pairs.rows_naming(WORDS).tolist())
    assert len(manifest.edits) == 5


def test_label_consistent_needs_a_row_that_names_the_target() -> None:
    mute = type(DATA.train)(DATA.train.images, [("nothing",)] * len(DATA.train), "mute")
    with pytest.raises(UserError, match="no training caption names 'fruit'; take another target"):
        label_consistent().poison(mute, DATA.assets, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("attack", "fields", "message"),
    [
        (Blended, {"ratio": 0}, "field 'ratio'"),
        (Blended, {"picture": "dog"}, "field 'picture'"),
        (Sig, {"amplitud": 0.1}, "did you mean 'amplitude'"),
        (WaNet, {"k": 1}, "field 'k'"),
        (PhotoFilter, {"strength": 2}, "field 'strength'"),
        (LabelConsistent, {"captions": "corpus"}, "unknown field 'captions'"),
    ],
)
def test_a_wrong_configuration_is_refused_by_field(
    attack: type[Attack], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        made(attack, **fields)


def test_a_warp_that_leaves_nothing_of_the_picture_is_refused() -> None:
    with pytest.raises(UserError, match=r"field 's': at most 112 on a canvas of 224 pixels"):
        WaNet({"s": 200})
