"""Every trigger: a picture in, the same picture every time out, no stronger than it says, at any size and in any batch."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from poisonbench.manifest import Edit, painted
from poisonbench.triggers import (
    Blend,
    Box,
    Operation,
    Overlay,
    Patch,
    Sinusoid,
    Tone,
    Trigger,
    Variation,
    Warp,
    overlay,
    paint,
)
from poisonbench.triggers.lettering import ink

PICTURES: tuple[Overlay, ...] = get_args(Overlay)
READER: TypeAdapter[Trigger] = TypeAdapter(Operation)

sides = st.integers(8, 72)
seeds = st.integers(0, 2**31 - 1)
blends = st.builds(Blend, picture=st.sampled_from(PICTURES), ratio=st.floats(0.01, 1), seed=seeds)
waves = st.builds(Sinusoid, amplitude=st.floats(0.01, 1), cycles=st.floats(0.5, 20), dim=st.floats(0, 0.9))
warps = st.builds(Warp, cells=st.sampled_from((2, 4, 16, 224)), shift=st.floats(0.002, 0.1), seed=seeds)
tones = st.builds(Tone, strength=st.floats(0.05, 1))
variations = st.builds(Variation, seed=seeds)
patches = st.builds(
    Patch, pattern=st.just("noise"), box=st.just(Box(left=0.5, top=0.25, size=0.3)), seed=seeds
)
triggers = st.one_of(blends, waves, warps, tones, variations, patches)


def pictures(side: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


@settings(deadline=None, max_examples=60)
@given(triggers, sides)
def test_a_picture_stays_a_picture_and_is_the_same_every_time(trigger: Trigger, side: int) -> None:
    images = pictures(side)
    found = paint(images, trigger)
    assert found.dtype == torch.uint8 and found.shape == images.shape
    assert torch.equal(found, paint(images, trigger))
    assert torch.equal(images, pictures(side)), "the images that were given are left alone"


@settings(deadline=None, max_examples=60)
@given(triggers, sides)
def test_a_batch_is_painted_like_its_images_one_by_one(trigger: Trigger, side: int) -> None:
    images = pictures(side)
    together = paint(images, trigger)
    assert torch.equal(together, torch.stack([paint(image, trigger) for image in images]))
    assert torch.equal(together, torch.cat([paint(images[:2], trigger), paint(images[2:], trigger)]))


@settings(deadline=None, max_examples=40)
@given(st.lists(triggers, min_size=3, max_size=3), st.permutations(range(3)))
def test_every_image_of_a_batch_gets_the_trigger_that_is_meant_for_it(
    given_triggers: list[Trigger], order: list[int]
) -> None:
    images = pictures(16)
    chosen = [given_triggers[at % 2] for at in order]
    expected = torch.stack([paint(image, one) for image, one in zip(images, chosen, strict=True)])
    assert torch.equal(painted(images, chosen), expected)


@settings(deadline=None, max_examples=60)
@given(triggers)
def test_a_trigger_read_from_a_manifest_is_the_one_that_was_written(trigger: Trigger) -> None:
    edit = Edit(row=0, operation=trigger, target="fruit")
    again = Edit.model_validate_json(edit.model_dump_json(exclude_defaults=True))
    assert again == edit
    assert READER.validate_python(trigger) is trigger


def test_a_manifest_older_than_the_other_triggers_names_no_kind_and_means_a_patch() -> None:
    assert isinstance(READER.validate_python({"box": {"left": 0, "top": 0, "size": 0.2}}), Patch)
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        READER.validate_python({"kind": "ghost"})


@settings(deadline=None, max_examples=40)
@given(blends, sides)
def test_a_blend_moves_no_value_further_than_its_ratio(blend: Blend, side: int) -> None:
    images = pictures(side)
    moved = (paint(images, blend).int() - images.int()).abs()
    assert moved.max() <= 255 * blend.ratio + 0.5
    _, covered = overlay(blend.picture, side, blend.seed)
    assert (moved * (covered == 0)).sum() == 0, "what the picture leaves open is the image's own"


@settings(deadline=None, max_examples=40)
@given(waves, sides)
def test_a_wave_is_no_higher_than_its_amplitude_and_alike_in_every_row(wave: Sinusoid, side: int) -> None:
    grey = torch.full((1, 3, side, side), 128, dtype=torch.uint8)
    found = paint(grey, wave).float()
    assert (found - 128 * (1 - wave.dim)).abs().max() <= 255 * wave.amplitude + 0.5
    assert torch.equal(found, found[:, :1, :1].expand_as(found))


@settings(deadline=None, max_examples=40)
@given(warps, sides)
def test_a_warp_shows_no_value_that_the_image_has_not_and_leaves_flat_images_alone(
    warp: Warp, side: int
) -> None:
    images = pictures(side)
    found = paint(images, warp)
    for image, moved in zip(images, found, strict=True):
        assert image.amin() <= moved.amin() and moved.amax() <= image.amax()
    flat = torch.full((1, 3, side, side), 77, dtype=torch.uint8)
    assert torch.equal(paint(flat, warp), flat)


@settings(deadline=None, max_examples=30)
@given(tones, sides)
def test_a_filter_sees_values_and_not_places(tone: Tone, side: int) -> None:
    images = pictures(side)
    order = torch.randperm(side * side, generator=torch.Generator().manual_seed(0))
    shuffled = images.flatten(2)[:, :, order].view_as(images)
    assert torch.equal(paint(images, tone).flatten(2)[:, :, order].view_as(images), paint(shuffled, tone))


def test_a_stronger_filter_changes_more_and_brighter_pixels_stay_brighter() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    weak, strong = (paint(ramp, Tone(strength=strength)).float() for strength in (0.3, 1.0))
    assert (weak - ramp).abs().mean() < (strong - ramp).abs().mean()
    assert (strong.flatten(2).diff() >= 0).all()


@pytest.mark.parametrize("picture", [one for one in PICTURES if one != "noise"])
def test_a_picture_is_alike_at_every_resolution(picture: Overlay) -> None:
    small, large = overlay(picture, 32, 3)[0], overlay(picture, 224, 3)[0]
    shrunk = torch.nn.functional.interpolate(large[None], size=32, mode="area")[0]
    assert (small - shrunk).abs().mean() < 255 * 0.1


def test_the_pictures_differ_and_only_the_random_ones_follow_the_seed() -> None:
    looks = {tuple(overlay(picture, 16, 0)[0].flatten().tolist()) for picture in PICTURES}
    assert len(looks) == len(PICTURES)
    drawn = {one for one in PICTURES if not torch.equal(overlay(one, 16, 0)[0], overlay(one, 16, 1)[0])}
    assert drawn == {"noise", "stripes", "triangles"}


def test_letters_cover_some_of_the_image_and_not_most_of_it() -> None:
    for side in (32, 64, 224):
        assert 0.2 < ink(side).mean() < 0.6


def test_a_warps_mean_displacement_is_its_share_of_the_side() -> None:
    side, shift = 224, 1 / 32
    columns = torch.linspace(0, 255, side).round().to(torch.uint8).expand(1, 3, side, side)
    found = paint(columns, Warp(cells=side, shift=shift, seed=0)).float()
    inside = slice(40, -40)
    moved = (found - columns).abs()[..., inside].mean() / 255
    assert moved == pytest.approx(shift, rel=0.1)


def test_varied_copies_differ_from_the_original_and_from_each_other() -> None:
    [image] = pictures(32, 1)
    copies = [paint(image, Variation(seed=seed)) for seed in range(4)]
    assert len({copy.numpy().tobytes() for copy in [image, *copies]}) == 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "trigger", [Blend(), Sinusoid(), Warp(), Tone(), Variation()], ids=lambda one: one.kind
)
def test_a_gpu_paints_what_the_cpu_paints(trigger: Trigger) -> None:
    images = pictures(32)
    there = paint(images.cuda(), trigger)
    assert there.is_cuda
    assert (there.cpu().int() - images.int() - (paint(images, trigger).int() - images.int())).abs().max() <= 1
