"""The benchmark of disturbances: each changes what it says it changes, and the test counts who passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from disturbances import LOOKS, fits_of, main
from hypothesis import given
from hypothesis import strategies as st

from poisonbench.defenses.otcclip.looks import (
    blurred,
    disturbed,
    each_in_its_look,
    grey,
    hardened,
    stretched,
    turned,
    upside_down,
)


@pytest.mark.parametrize("side", [32, 48, 224])
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_keeps_size_and_range(look: str, side: int) -> None:
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    seen = LOOKS[look](images)
    assert seen.shape == images.shape
    assert float(seen.min()) >= 0 and float(seen.max()) <= 1 + 1e-6


def test_blur_takes_fine_stripes_away_and_leaves_an_even_picture() -> None:
    stripes = (torch.arange(32) % 2).float().expand(1, 3, 32, 32)
    assert float(blurred(stripes).std()) < 0.25 * float(stripes.std())
    assert torch.allclose(blurred(torch.full((1, 3, 32, 32), 0.3)), torch.full((1, 3, 32, 32), 0.3))


def test_grey_has_one_value_in_all_channels() -> None:
    seen = grey(torch.rand(2, 3, 8, 8))
    assert torch.equal(seen[:, 0], seen[:, 1]) and torch.equal(seen[:, 0], seen[:, 2])


@given(gains=st.lists(st.floats(0.2, 1.0), min_size=3, max_size=3), seed=st.integers(0, 2**31))
def test_stretching_undoes_a_straight_tone_curve_of_every_colour(gains: list[float], seed: int) -> None:
    images, gain = (
        torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)),
        torch.tensor(gains).view(3, 1, 1),
    )
    toned = gain * images + (1 - gain) / 2
    assert torch.allclose(stretched(toned), stretched(images), atol=1e-4)
    assert torch.equal(stretched(torch.full((1, 3, 8, 8), 0.4)), torch.zeros(1, 3, 8, 8)), (
        "nothing to stretch"
    )


@given(share=st.floats(0, 0.3), seed=st.integers(0, 2**31))
def test_a_hard_contrast_loses_what_is_blended_into_bright_and_dark_places(share: float, seed: int) -> None:
    overlay = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    bright, dark = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    for plain in (bright, dark):
        assert torch.allclose(hardened((1 - share) * plain + share * overlay), plain, atol=1e-6)
    medium = 0.5 + 0.3 * (overlay - 0.5)
    assert torch.allclose(hardened(medium), 0.5 + 3 * (medium - 0.5)), "between them nothing is cut off"


def test_upside_down_the_last_row_is_the_first() -> None:
    images = torch.rand(2, 3, 8, 8)
    seen = upside_down(images)
    assert torch.equal(seen[:, :, 0], images[:, :, -1]) and torch.equal(upside_down(seen), images)


def test_eight_turns_bring_a_disc_back_and_one_moves_a_bar() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    disc = torch.sigmoid(20 * (0.5 - (x**2 + y**2).sqrt())).expand(1, 3, 33, 33)
    bar = torch.sigmoid(20 * (0.15 - x.abs())).expand(1, 3, 33, 33)
    assert float((turned(disc) - disc).abs().max()) < 0.1
    assert float((turned(bar) - bar).abs().mean()) > 0.1


@given(which=st.lists(st.integers(0, 2), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_every_image_can_have_a_look_of_its_own(which: list[int], seed: int) -> None:
    names = ("grey", "stretched", "upside_down")
    images = torch.rand(len(which), 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    before, views = images.clone(), disturbed(images, names)
    found = each_in_its_look(images, names, torch.tensor(which))
    assert torch.equal(found, torch.stack([views[look][place] for place, look in enumerate(which)]))
    assert torch.equal(images, before), "the pictures themselves are left alone"


def test_pairs_that_fit_pass_and_mismatched_ones_as_often_as_decoys() -> None:
    rng = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(1024, 32, generator=rng), dim=-1)
    image = F.normalize(text + 0.1 * torch.randn(1024, 32, generator=rng), dim=-1)
    bad = torch.arange(1024) % 8 == 0
    image[bad] = F.normalize(torch.randn(int(bad.sum()), 32, generator=rng), dim=-1)
    own, decoy = fits_of(image, text)
    passes = own > torch.quantile(decoy, 0.8)
    assert passes[~bad].all()
    assert 0.08 < float(passes[bad].float().mean()) < 0.35


def test_what_is_no_cell_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path / "model.safetensors")])
    assert result.exit_code == 2 and "model.safetensors" in result.output


def test_a_look_that_is_none_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path / "model.safetensors"), "--looks", "blurred,squinted"])
    assert result.exit_code == 2 and "--looks" in result.output and "squinted" in result.output
