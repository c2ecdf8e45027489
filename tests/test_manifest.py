"""The manifest: all that an attack does, as a file, applied the same way every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.conformance.data import every, tiny_data
from poisonbench.errors import UserError
from poisonbench.manifest import Edit, Manifest, Picture
from poisonbench.settings import validated
from poisonbench.triggers import Box, Patch, paint

DATA = tiny_data()
ROWS = len(DATA.train)
STAMP = Patch(pattern="noise", box=Box(left=0.5, top=0.25, size=0.2), seed=7)
MANIFEST = Manifest(
    edits=(
        Edit(captions=("added one",), picture=Picture(source="row", index=2), target="fruit", group=1),
        Edit(row=5, operation=STAMP, captions=("stamped", "twice"), target="fruit"),
        Edit(row=3, picture=Picture(source="row", index=5), target="fruit"),
        Edit(captions=("added two",), picture=Picture(source="target", index=9), target="tool"),
        Edit(row=0, picture=Picture(source="target", index=1), operation=STAMP, target="tool"),
    ),
    target_words={"fruit": ("fruit", "balo0"), "tool": ("tool",)},
)
POISONED = MANIFEST.apply(DATA.train, DATA.targets)

picked = st.integers(0, ROWS + 1)


def image(row: int) -> torch.Tensor:
    return POISONED.images.fetch(np.array([row]))[0]


def test_a_manifest_read_from_its_file_makes_the_same_pairs() -> None:
    again = Manifest.model_validate_json(MANIFEST.model_dump_json(exclude_defaults=True))
    rebuilt = again.apply(DATA.train, DATA.targets)
    assert again == MANIFEST
    assert rebuilt.captions == POISONED.captions and rebuilt.fingerprint == POISONED.fingerprint
    assert torch.equal(every(rebuilt.images), every(POISONED.images))


def test_rows_that_are_not_edited_keep_their_pixels_and_captions() -> None:
    clean = np.setdiff1d(np.arange(ROWS), [0, 3, 5])
    assert torch.equal(POISONED.images.fetch(clean), DATA.train.images.fetch(clean))
    assert [POISONED.captions[row] for row in clean] == [DATA.train.captions[row] for row in clean]


def test_applying_leaves_the_clean_pairs_alone() -> None:
    every(POISONED.images)
    assert torch.equal(every(DATA.train.images), every(tiny_data().train.images))
    assert list(DATA.train.captions) == list(tiny_data().train.captions)


def test_appended_rows_come_last_in_the_order_of_the_manifest() -> None:
    assert len(POISONED) == len(POISONED.images) == ROWS + 2
    assert POISONED.captions[ROWS:] == [("added one",), ("added two",)]
    assert torch.equal(image(ROWS), DATA.train.images.fetch(np.array([2]))[0])


def test_rows_names_the_changed_rows_and_then_the_appended_ones() -> None:
    assert MANIFEST.rows(ROWS).tolist() == [5, 3, 0, ROWS, ROWS + 1]
    assert [edit.row for edit in MANIFEST.changed] == [5, 3, 0]
    assert len(MANIFEST.changed) + len(MANIFEST.appended) == len(MANIFEST.edits)


def test_captions_change_only_where_an_edit_gives_new_ones() -> None:
    assert POISONED.captions[5] == ("stamped", "twice")
    assert POISONED.captions[3] == DATA.train.captions[3]


def test_an_image_is_the_rows_own_or_another_rows_or_held_out_art() -> None:
    assert DATA.targets is not None
    clean, art = every(DATA.train.images), every(DATA.targets.images)
    assert torch.equal(image(5), paint(clean[5], STAMP))
    assert torch.equal(image(3), clean[5]), "another row's image comes without what was painted on it"
    assert torch.equal(image(ROWS + 1), art[9])
    assert torch.equal(image(0), paint(art[1], STAMP))


@settings(deadline=None)
@given(st.lists(picked, min_size=1, max_size=12))
def test_rows_may_be_fetched_in_any_order_and_more_than_once(rows: list[int]) -> None:
    together = POISONED.images.fetch(np.array(rows))
    assert torch.equal(together, torch.stack([image(row) for row in rows]))


@pytest.mark.parametrize(
    "edits", [(Edit(row=4, target="fruit"), Edit(row=4, target="tool")), (Edit(row=ROWS, target="fruit"),)]
)
def test_a_row_edited_twice_or_out_of_range_is_refused(edits: tuple[Edit, ...]) -> None:
    with pytest.raises(ValueError, match="edits a row"):
        Manifest(edits=edits).apply(DATA.train, DATA.targets)


def test_an_appended_row_without_captions_is_refused() -> None:
    with pytest.raises(ValueError, match="needs captions"):
        Manifest(edits=(Edit(target="fruit"),)).apply(DATA.train, DATA.targets)


def test_held_out_art_is_asked_for_by_name_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="needs held-out target art"):
        MANIFEST.apply(DATA.train, None).images.fetch(np.array([0]))


def test_an_empty_manifest_changes_nothing_and_the_fingerprint_tells_manifests_apart() -> None:
    untouched = Manifest().apply(DATA.train, DATA.targets)
    assert torch.equal(every(untouched.images), every(DATA.train.images))
    assert list(untouched.captions) == list(DATA.train.captions)
    other = MANIFEST.model_copy(update={"edits": MANIFEST.edits[:-1]}).apply(DATA.train, DATA.targets)
    elsewhere = MANIFEST.apply(replace(DATA.train, fingerprint="other pairs"), DATA.targets)
    assert len({one.fingerprint for one in (untouched, POISONED, other, elsewhere)}) == 4


def test_a_misspelt_field_of_a_manifest_file_is_named() -> None:
    with pytest.raises(UserError, match=r"manifest\.json: unknown field 'edit'; did you mean 'edits'"):
        validated(Manifest, {"edit": []}, "manifest.json")


def test_an_appended_row_that_has_no_row_of_its_own_needs_another_picture() -> None:
    with pytest.raises(ValueError, match="a picture of its own"):
        Manifest(edits=(Edit(captions=("x",), target="fruit"),)).apply(DATA.train, DATA.targets)


def test_a_picture_that_does_not_exist_is_refused_before_training() -> None:
    edit = Edit(row=0, picture=Picture(source="row", index=ROWS), target="fruit")
    with pytest.raises(ValueError, match="picture that does not exist"):
        Manifest(edits=(edit,)).apply(DATA.train, DATA.targets)


def test_the_poisoned_images_show_neither_the_manifest_nor_the_clean_images() -> None:
    assert {name for name in dir(POISONED.images) if not name.startswith("_")} == {"fetch", "side"}
