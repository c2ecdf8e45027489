"""The picture of an attack: what was, what is, and where they differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from poisonbench import specimens
from poisonbench.attacks.backdoor_badnet import BadNet
from poisonbench.attacks.targeted import Targeted
from poisonbench.conformance.data import tiny_data
from poisonbench.errors import UserError
from poisonbench.manifest import Manifest
from poisonbench.resolve import Request, resolve

DATA = tiny_data()


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_changed_row_is_shown_with_its_old_and_its_new_picture_and_caption() -> None:
    manifest = BadNet({"target": "fruit", "rate": 0.1}).poison(DATA.train, DATA.assets, rng())
    found = specimens.specimens(manifest, DATA, count=4)
    assert len(found) == 4
    edit = manifest.edits[0]
    assert edit.row is not None and edit.operation is not None
    assert torch.equal(found[0].clean, DATA.train.images.fetch(np.array([edit.row]))[0])
    assert torch.equal(found[0].poisoned, edit.operation.paint(found[0].clean))
    assert found[0].before == DATA.train.captions[edit.row][0]
    assert (found[0].after,) == edit.captions


def test_an_added_row_is_shown_beside_the_picture_that_it_was_made_from() -> None:
    manifest = Targeted({"targets": 2}).poison(DATA.train, DATA.assets, rng())
    first = specimens.specimens(manifest, DATA, count=1)[0]
    assert torch.equal(first.clean, first.poisoned)
    assert first.before == ""


def test_the_sheet_shows_clean_poisoned_and_difference_side_by_side() -> None:
    manifest = BadNet({"target": "fruit", "rate": 0.1}).poison(DATA.train, DATA.assets, rng())
    found = specimens.specimens(manifest, DATA, count=2)
    page = np.asarray(specimens.sheet(found, "café ☃"))
    top, step = 3 * specimens.LINE, specimens.TILE + specimens.GAP
    tiles = [
        page[top : top + specimens.TILE, left : left + specimens.TILE]
        for left in (specimens.GAP + column * step for column in range(3))
    ]
    same = (tiles[0] == tiles[1]).all(axis=-1)
    assert 0.5 < same.mean() < 1
    assert (tiles[2][same] == 0).all() and tiles[2][~same].any()


def test_an_attack_that_poisons_nothing_has_no_picture() -> None:
    assert specimens.specimens(Manifest(), DATA) == []
    [cell] = resolve(Request(tier="smoke", device="cpu"))
    with pytest.raises(UserError, match="attack 'none' poisons nothing"):
        specimens.draw(cell, Path("unused.png"))


def test_a_file_is_written_and_a_bad_name_is_refused(tmp_path: Path) -> None:
    [cell] = resolve(Request(attacks=("backdoor_blended:stripes",), tier="smoke", device="cpu"))
    with Image.open(specimens.draw(cell, tmp_path / "stripes.png")) as page:
        assert page.width > 3 * specimens.TILE and page.height > specimens.ROWS * specimens.TILE
    for bad in (tmp_path / "missing" / "x.png", tmp_path / "picture.docs"):
        with pytest.raises(UserError, match=r"--pictures .*name a file that can be written"):
            specimens.draw(cell, bad)
