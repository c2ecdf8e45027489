"""Copies: equal pictures share a number, and so does a crowd of cuts from one picture, but nothing that a scout merely likens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.augment.images import crop, jitter
from poisonbench.defenses.otcclip.copies import (
    CROWD,
    SIDE,
    agreement,
    first_rows,
    pictures,
    with_near_copies,
)
from poisonbench.pairs import ArrayImages

OTHERS = 40
ALIKE = 0.93


def drawings(count: int, seed: int) -> Tensor:
    """Smooth random pictures, (count, 3, 32, 32) in [0, 1]."""
    coarse = torch.rand((count, 3, 5, 5), generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)


def cut_from(picture: Tensor, count: int, seed: int) -> Tensor:
    """Cropped, perhaps mirrored and recoloured copies of a picture (3, 32, 32)."""
    rng = torch.Generator().manual_seed(seed)
    copies = picture.expand(max(1, count), -1, -1, -1)
    return jitter(crop(copies, rng, 0.85), rng, 0.15, 0.02, 1.0)[:count]


def scene(copies: int, seed: int) -> tuple[ArrayImages, Tensor]:
    """``OTHERS`` drawings and then some cuts from another one; and what a scout sees, to which the cuts are alike."""
    pixels = torch.cat([drawings(OTHERS, seed), cut_from(drawings(1, seed + 1)[0], copies, seed)])
    rng = torch.Generator().manual_seed(seed)
    kinds = torch.randn((OTHERS + 1, 16), generator=rng)
    points = kinds[torch.arange(len(pixels)).clamp(max=OTHERS)]
    points = points + 0.1 * torch.randn(points.shape, generator=rng)
    return ArrayImages((255 * pixels).round().to(torch.uint8)), F.normalize(points, dim=1)


def test_copies_of_a_picture_share_a_number_and_other_pictures_have_their_own() -> None:
    pixels = torch.randint(256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    copied = ArrayImages(pixels[[0, 1, 2, 1, 3, 4, 0]])
    for batch in (2, 100):
        found = pictures(copied, batch).tolist()
        assert found[0] == found[6] and found[1] == found[3]
        assert sorted(set(found)) == list(range(5))


def test_every_picture_has_a_first_row() -> None:
    assert first_rows(torch.tensor([2, 0, 0, 1, 2])).tolist() == [1, 3, 0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**20))
def test_cuts_from_one_picture_agree_and_other_pictures_do_not(seed: int) -> None:
    cuts, others = cut_from(drawings(1, seed)[0], 8, seed), drawings(8, seed + 1)
    small = F.interpolate(255 * torch.cat([cuts, others]), SIDE, mode="area")
    here = torch.arange(7)
    copies, strangers = agreement(small, here, here + 1), agreement(small, here, here + 8)
    assert copies.median() > strangers.max() and strangers.max() < ALIKE


def test_a_picture_agrees_with_itself_mirrored_lit_otherwise_and_however_large_its_pixels_are() -> None:
    picture = drawings(1, 3)
    views = torch.cat([picture, picture.flip(3), 0.5 * picture + 0.2])
    small = F.interpolate(255 * views, SIDE, mode="area")
    found = agreement(small, torch.tensor([0, 0]), torch.tensor([1, 2]))
    torch.testing.assert_close(found, torch.ones(2), atol=0.01, rtol=0)


def test_an_empty_picture_agrees_with_nothing() -> None:
    small = torch.stack([torch.full((3, SIDE, SIDE), 255.0), torch.full((3, SIDE, SIDE), 255.0)])
    assert agreement(small, torch.tensor([0]), torch.tensor([1])).item() == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**20))
def test_a_crowd_of_cuts_is_one_picture_and_the_others_stay_their_own(seed: int) -> None:
    images, points = scene(20, seed)
    found = with_near_copies(images, torch.arange(len(points)), points, ALIKE)
    sizes = torch.bincount(found)[found]
    assert (sizes[:OTHERS] == 1).all()
    assert (sizes[OTHERS:] > 1).float().mean() >= 0.9
    assert torch.equal(torch.unique(found), torch.arange(int(found.max()) + 1)), "no gaps"


def test_a_few_versions_of_a_drawing_are_pictures_of_their_own() -> None:
    images, points = scene(CROWD - 1, 5)
    groups = torch.arange(len(points))
    assert torch.equal(with_near_copies(images, groups, points, ALIKE), groups)


@pytest.mark.parametrize("alike", [1.0, 0.93])
def test_without_near_copies_the_exact_ones_stay_together(alike: float) -> None:
    images, points = scene(0, 6)
    groups = torch.arange(len(points)) // 2
    found = with_near_copies(images, groups, points[first_rows(groups)], alike)
    assert torch.equal(found, groups)


def test_exact_copies_follow_the_first_of_them_into_the_crowd() -> None:
    images, points = scene(20, 8)
    rows = torch.cat([torch.arange(len(points)), torch.tensor([OTHERS, 0])])
    doubled = ArrayImages(images.fetch(rows.numpy()))
    found = with_near_copies(doubled, rows, points, ALIKE)
    assert found[-2] == found[OTHERS] and found[-1] == found[0]
    assert int(torch.bincount(found)[found[-2]]) > CROWD and int(torch.bincount(found)[found[-1]]) == 2


def test_what_a_scout_likens_is_no_copy_unless_the_pixels_agree() -> None:
    images, _ = scene(0, 9)
    points = F.normalize(torch.ones(OTHERS, 16) + 0.01 * torch.randn(OTHERS, 16), dim=1)
    groups = torch.arange(OTHERS)
    assert torch.equal(with_near_copies(images, groups, points, ALIKE), groups)


def test_the_order_of_rows_does_not_matter() -> None:
    images, points = scene(20, 10)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    groups = torch.arange(len(points))
    found = with_near_copies(images, groups, points, ALIKE)
    moved = with_near_copies(ArrayImages(images.fetch(order.numpy())), groups, points[order], ALIKE)
    assert torch.equal(moved[:, None] == moved, found[order][:, None] == found[order])
