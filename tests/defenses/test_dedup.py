"""Deduplication: copies of a picture and repeated captions go, the first ones stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import Curation
from poisonbench.defenses.dedup import Dedup, near_copies, perceptual_hashes, same
from poisonbench.lab import Lab
from poisonbench.pairs import ArrayImages, Pairs


@pytest.fixture(scope="module")
def lab() -> Lab:
    return tiny_lab(tiny_data(), Dedup.card)


def smooth(count: int, side: int = 32) -> Tensor:
    """Pictures of a few blobs, all different, uint8 (count, 3, side, side)."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    big = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", antialias=True)
    return (255 * big.clamp(0, 1)).to(torch.uint8)


def curate(lab: Lab, images: Tensor, texts: Sequence[str] = (), **config: Any) -> Curation:
    captions = [(text,) for text in texts or map(str, range(len(images)))]
    return Dedup(config).curate(Pairs(ArrayImages(images), captions, "test"), lab)


def noisy(images: Tensor) -> Tensor:
    noise = torch.randint(-3, 4, images.shape, generator=torch.Generator().manual_seed(2))
    return (images.int() + noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("match", ["near", "exact"])
def test_of_equal_pictures_the_first_stay(lab: Lab, match: str) -> None:
    images = smooth(20)
    images[[5, 9, 13]] = images[[2, 2, 2]]
    for copies, gone in ((1, [5, 9, 13]), (2, [9, 13]), (4, [])):
        curation = curate(lab, images, match=match, copies=copies)
        assert np.flatnonzero(~curation.keep).tolist() == gone
    assert curation.scores.tolist() == [3.0 if row in (2, 5, 9, 13) else 0.0 for row in range(20)]


def test_a_picture_with_a_little_noise_is_near_and_not_exact(lab: Lab) -> None:
    images = smooth(10)
    doubled = torch.cat([images, noisy(images)])
    near = curate(lab, doubled, distance=6)
    assert near.keep.tolist() == [True] * 10 + [False] * 10
    assert curate(lab, doubled, match="exact").keep.all()


@pytest.mark.parametrize("side", [16, 32, 224])
def test_a_hash_belongs_to_the_picture_at_any_resolution(side: int) -> None:
    hashes = perceptual_hashes(ArrayImages(smooth(12, side)))
    small = perceptual_hashes(ArrayImages(smooth(12, 64)))
    assert hashes.shape == (12, 64) and set(hashes.unique().tolist()) == {-1.0, 1.0}
    nearest = (hashes @ small.T).argmax(dim=1)
    assert nearest.tolist() == list(range(12))


def test_brightness_and_contrast_do_not_change_a_hash() -> None:
    images = smooth(12)
    paler = (images // 2 + 60).to(torch.uint8)
    one, other = (perceptual_hashes(ArrayImages(each)) for each in (images, paler))
    assert ((one * other).sum(dim=1) >= 64 - 2 * 4).all(), "but for rounding"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.integers(0, 40), st.integers(1, 4000))
def test_near_copies_are_counted_as_one_by_one_whatever_the_budget(
    seed: int, n: int, distance: int, budget: int
) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (n, 64)) * rng.integers(0, 2, (1, 64))  # alike in half of the bits
    earlier, others = near_copies(torch.from_numpy(2.0 * bits - 1).float(), distance, budget)
    differ = (bits[:, None] != bits[None]).sum(axis=2)
    near = [
        [other for other in range(n) if other != row and differ[row, other] <= distance] for row in range(n)
    ]
    assert others.tolist() == [len(rows) for rows in near]
    assert earlier.tolist() == [sum(other < row for other in rows) for row, rows in enumerate(near)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
def test_equal_keys_are_counted_as_one_by_one(keys: list[str]) -> None:
    earlier, others = same(keys)
    assert earlier.tolist() == [keys[:row].count(key) for row, key in enumerate(keys)]
    assert others.tolist() == [keys.count(key) - 1 for key in keys]


def test_a_caption_cap_keeps_the_first_rows_of_a_caption(lab: Lab) -> None:
    captions = ["a dog", "a cat", "a dog", "a dog", "a cat", "a dog"]
    curation = curate(lab, smooth(6), captions, captions=2)
    assert curation.keep.tolist() == [True, True, True, False, True, False]
    assert curation.scores.tolist() == [2.0, 0.0, 2.0, 2.0, 0.0, 2.0]
    assert curate(lab, smooth(6), captions).keep.all(), "without a cap captions may repeat"


def test_nothing_is_trained(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lab, "train", None)
    assert Dedup().curate(lab.pairs, lab).keep.any()
