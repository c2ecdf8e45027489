"""Triggers: the same picture every time, only where it was asked for, and inside every evaluation crop."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms.functional import center_crop  # type: ignore[import-untyped]

from poisonbench.triggers import EVALUATION_CROPS, GRID, Box, Patch, Pattern, paint, patch_pixels, safe_span

PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
CROPPED_SIDES = range(16, 257)

sides = st.integers(8, 96)
seeds = st.integers(0, 2**31 - 1)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    size = draw(st.floats(0.02, 1))
    left, top = (draw(st.floats(0, max(0.0, 1 - size), exclude_max=size < 1)) for _ in range(2))
    return Box(left=left, top=top, size=size)


@st.composite
def patches(draw: st.DrawFn) -> Patch:
    return Patch(pattern=draw(st.sampled_from(PATTERNS)), box=draw(boxes()), seed=draw(seeds))


def noise(side: int) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)


def covered(box: Box, side: int) -> Tensor:
    """True at the pixels of the box."""
    left, top, edge = box.pixels(side)
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[top : top + edge, left : left + edge] = True
    return mask


@settings(deadline=None)
@given(patches(), sides)
def test_painting_twice_gives_the_same_picture_and_leaves_the_input_alone(patch: Patch, side: int) -> None:
    image = noise(side)
    painted = paint(image, patch)
    assert torch.equal(painted, paint(image, patch))
    assert torch.equal(image, noise(side))
    assert painted.dtype == torch.uint8 and painted.shape == image.shape


@settings(deadline=None)
@given(patches(), sides)
def test_only_the_box_is_painted_and_whatever_was_in_it_is_gone(patch: Patch, side: int) -> None:
    image, inside = noise(side), covered(patch.box, side)
    painted = paint(image, patch)
    assert torch.equal(painted[:, ~inside], image[:, ~inside])
    assert torch.equal(painted[:, inside], paint(255 - image, patch)[:, inside])


@settings(deadline=None)
@given(boxes(), sides)
def test_a_box_has_at_least_one_pixel_and_lies_inside_the_image(box: Box, side: int) -> None:
    left, top, edge = box.pixels(side)
    assert edge >= 1
    assert 0 <= left <= side - edge and 0 <= top <= side - edge


@settings(deadline=None)
@given(patches(), sides)
def test_an_operation_survives_the_manifest_file(patch: Patch, side: int) -> None:
    again = Patch.model_validate_json(patch.model_dump_json())
    assert torch.equal(paint(noise(side), again), paint(noise(side), patch))


def centre_crops(length: int) -> list[tuple[int, int]]:
    """First pixel and end of every evaluation crop; an odd margin is split either way, for libraries differ."""
    crops = [(length - kept, kept) for kept in (int(length * share) for share in EVALUATION_CROPS)]
    return [(low, low + kept) for margin, kept in crops for low in (margin // 2, margin - margin // 2)]


def test_the_safe_span_is_exactly_what_every_crop_keeps_at_even_and_odd_sides() -> None:
    for side in CROPPED_SIDES:
        kept = set.intersection(*(set(range(low, high)) for low, high in centre_crops(side)))
        assert list(range(*safe_span(side))) == sorted(kept), side


@settings(deadline=None, max_examples=300)
@given(boxes(), st.sampled_from(CROPPED_SIDES))
def test_a_box_survives_if_and_only_if_no_crop_cuts_it(box: Box, side: int) -> None:
    mask = covered(box, side)
    whole = all(mask[low:high, low:high].sum() == mask.sum() for low, high in centre_crops(side))
    assert box.survives(side) == whole


def small_box(at: int, side: int) -> Box:
    return Box(left=at / side, top=at / side, size=2 / side)


@pytest.mark.parametrize("side", [16, 17, 32, 33, 47, 64, 100, 223, 224, 225, 255, 256])
def test_the_outermost_safe_boxes_are_whole_in_torchvisions_crops_and_one_pixel_further_out_is_not_safe(
    side: int,
) -> None:
    low, high = safe_span(side)
    for at in (low, high - 2):
        assert small_box(at, side).survives(side)
        for share in EVALUATION_CROPS:
            assert center_crop(covered(small_box(at, side), side)[None], [int(side * share)]).sum() == 4
    for at in (low - 1, high - 1):
        assert not small_box(at, side).survives(side)


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(deadline=None, max_examples=30)
@given(edge=st.integers(GRID, 60), seed=seeds)
def test_a_pattern_shows_the_same_cells_at_every_size(pattern: Pattern, edge: int, seed: int) -> None:
    cells, patch = patch_pixels(pattern, GRID, seed), patch_pixels(pattern, edge, seed)
    begins = [-(-cell * edge // GRID) for cell in range(GRID + 1)]
    for row in range(GRID):
        for column in range(GRID):
            block = patch[:, begins[row] : begins[row + 1], begins[column] : begins[column + 1]]
            assert block.numel() > 0
            assert torch.equal(block, cells[:, row, column][:, None, None].expand_as(block))


def test_every_pattern_looks_different() -> None:
    looks = {tuple(patch_pixels(pattern, GRID, 0).flatten().tolist()) for pattern in PATTERNS}
    assert len(looks) == len(PATTERNS)


def test_the_seed_draws_noise_and_leaves_a_checker_as_it_is() -> None:
    assert not torch.equal(patch_pixels("noise", GRID, 0), patch_pixels("noise", GRID, 1))
    assert torch.equal(patch_pixels("checker", GRID, 0), patch_pixels("checker", GRID, 1))


def test_a_patch_that_reaches_beyond_the_image_is_refused() -> None:
    with pytest.raises(ValidationError, match="reaches beyond the image"):
        Patch(box=Box(left=0.9, top=0, size=0.2))
