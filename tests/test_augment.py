"""Augmentation: a function of its input and its generator, image by image and caption by caption."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.augment.captions import STOP_WORDS, eda
from poisonbench.augment.images import augment, flip, greyscale
from poisonbench.defense import ImageAugment

POLICIES: tuple[ImageAugment, ...] = get_args(ImageAugment)
SYNONYMS = {"big": ("large", "huge"), "dog": ("hound",), "red": ("scarlet",), "the": ("thy",)}
OWN_WORDS = st.sampled_from(["a", "the", "big", "dog", "red", "on", "hill", "drawing"])
captions = st.lists(OWN_WORDS, min_size=1, max_size=12).map(" ".join)
seeds = st.integers(0, 2**32)

each_policy = pytest.mark.parametrize("policy", POLICIES)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 6, side: int = 32) -> Tensor:
    """Random bytes, with black and white among them, which leave the range first."""
    images = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=rng(99))
    images[0], images[1] = 0, 255
    return images


@each_policy
def test_the_same_generator_gives_the_same_views(policy: ImageAugment) -> None:
    images = pictures()
    assert torch.equal(augment(images, policy, rng()), augment(images, policy, rng()))
    assert torch.equal(images, pictures()), "the images that were given are left alone"


@each_policy
@pytest.mark.parametrize("side", [32, 45])
def test_views_are_images_of_the_same_shape_from_zero_to_one(policy: ImageAugment, side: int) -> None:
    images = pictures(side=side)
    for seed in range(5):
        views = augment(images, policy, rng(seed))
        assert views.shape == images.shape and views.dtype == torch.float32
        assert views.min() >= -1e-6 and views.max() <= 1 + 1e-6


@each_policy
def test_bytes_and_shares_of_one_give_the_same_views(policy: ImageAugment) -> None:
    images = pictures()
    torch.testing.assert_close(augment(images / 255, policy, rng()), augment(images, policy, rng()))


@each_policy
def test_a_view_depends_on_its_own_image_and_on_none_beside_it(policy: ImageAugment) -> None:
    images, others = pictures(), pictures()
    others[:3], others[4:] = 17, 200
    torch.testing.assert_close(
        augment(images, policy, rng())[3], augment(others, policy, rng())[3], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "none"])
def test_images_of_a_batch_have_draws_of_their_own(policy: ImageAugment) -> None:
    alike = pictures()[2:3].repeat(16, 1, 1, 1)
    views = augment(alike, policy, rng())
    assert not all(torch.equal(views[0], view) for view in views[1:])


def test_no_policy_is_no_change() -> None:
    assert torch.equal(augment(pictures(), "none", rng()), pictures().float() / 255)


def test_a_flip_mirrors_about_half_of_the_images_and_a_second_one_takes_it_back() -> None:
    images = pictures(200, side=8).float()[2:]
    flipped = flip(images, rng())
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 60 < sum(mirrored) < 140
    assert torch.equal(flip(flipped, rng()), images)


def test_greyscale_makes_the_channels_equal() -> None:
    grey = greyscale(pictures().float() / 255, rng(), 1.0)
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 1], grey[:, 2])


@settings(deadline=None, max_examples=300)
@given(captions, seeds)
def test_every_word_is_the_captions_own_or_a_synonym_of_one(caption: str, seed: int) -> None:
    own = caption.split()
    allowed = set(own) | {new for word in own if word not in STOP_WORDS for new in SYNONYMS.get(word, ())}
    changed = eda(caption, SYNONYMS, np.random.default_rng(seed)).split()
    assert changed and set(changed) <= allowed
    assert len(changed) <= len(own) + max(1, len(own) // 10)


@settings(deadline=None)
@given(st.text(max_size=40), seeds)
def test_any_text_can_be_augmented_and_the_generator_alone_decides(caption: str, seed: int) -> None:
    first, again = (eda(caption, SYNONYMS, np.random.default_rng(seed)) for _ in range(2))
    assert first == again
    assert bool(first) or not caption


@pytest.mark.parametrize("caption", ["", "   ", "123 456", "日本語", "!?'"])
def test_a_caption_without_letters_comes_back_as_it_is(caption: str) -> None:
    assert eda(caption, SYNONYMS, np.random.default_rng(0)) == caption


def test_all_four_operations_happen() -> None:
    results = {eda("big dog", SYNONYMS, np.random.default_rng(seed)) for seed in range(200)}
    assert {"large dog", "big hound", "dog big", "big large dog", "big"} <= results


def test_a_caption_of_one_word_is_never_emptied() -> None:
    deletes_everything = (eda("hill", {}, np.random.default_rng(seed), share=1.0) for seed in range(50))
    assert set(deletes_everything) == {"hill"}
