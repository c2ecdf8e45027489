"""Fits over the worst regions: what they are a mean of, and that a loud patch does not vouch for its image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.defenses.otcclip.regions import even, worst, worst_ring
from poisonbench.defenses.otcclip.rings import transport_ring
from poisonbench.towers import Features

PLANS = (0.1, 20, "torch")
SHIFTS = [0, 2, 5]


def features(rng: torch.Generator, rows: int, tokens: int, width: int = 16) -> Features:
    found = F.normalize(torch.randn(rows, tokens, width, generator=rng), dim=-1)
    real = torch.arange(tokens) < torch.randint(2, tokens + 1, (rows, 1), generator=rng)
    return Features(F.normalize(found.sum(dim=1), dim=-1), found, real)


def kept_by_hand(fits: Tensor, mask: Tensor, share: float) -> list[float]:
    rows = [sorted(row[real].tolist()) for row, real in zip(fits, mask, strict=True)]
    return [sum(row[:n]) / n for row in rows for n in [max(1, -int(-share * len(row) // 1))]]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([0.01, 0.25, 0.5, 0.75, 1.0]))
def test_the_smallest_share_of_the_real_fits_is_averaged(seed: int, width: int, share: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    fits = torch.randn(4, width, generator=rng, dtype=torch.float64)
    mask = torch.rand(4, width, generator=rng) < 0.7
    mask[:, int(torch.randint(width, (), generator=rng))] = True
    assert worst(fits, mask, share).tolist() == pytest.approx(kept_by_hand(fits, mask, share))


def test_over_all_regions_the_fit_is_the_transport_similarity() -> None:
    rng = torch.Generator().manual_seed(0)
    image, text = features(rng, 8, 6), features(rng, 8, 5)
    _, fine = worst_ring(image, text, SHIFTS, 1.0, *PLANS)
    expected = transport_ring(image, text, SHIFTS, *PLANS)
    assert torch.allclose(fine, expected, atol=1e-5)


def test_padding_changes_nothing() -> None:
    rng = torch.Generator().manual_seed(1)
    image, text = features(rng, 8, 6), features(rng, 8, 5)
    noise = F.normalize(torch.randn(8, 3, 16, generator=rng), dim=-1)
    hidden = torch.zeros(8, 3, dtype=torch.bool)
    wider = Features(text.embedding, torch.cat([text.tokens, noise], 1), torch.cat([text.mask, hidden], 1))
    taller = Features(
        image.embedding, torch.cat([image.tokens, noise], 1), torch.cat([image.mask, hidden], 1)
    )
    for plain, padded in zip(
        worst_ring(image, text, SHIFTS, 0.5, *PLANS),
        worst_ring(taller, wider, SHIFTS, 0.5, *PLANS),
        strict=True,
    ):
        assert torch.allclose(plain, padded, atol=1e-5)


def test_a_loud_patch_vouches_for_the_whole_image_but_not_for_its_worst_half() -> None:
    rng = torch.Generator().manual_seed(2)
    places = F.normalize(torch.randn(6, 16, 64, generator=rng), dim=-1)
    caption = F.normalize(torch.randn(6, 3, 64, generator=rng), dim=-1)
    stamped = places.clone()
    stamped[:, 4] = F.normalize(caption.sum(dim=1), dim=-1)
    text = Features(F.normalize(caption.sum(dim=1), dim=-1), caption, torch.ones(6, 3, dtype=torch.bool))
    whole: dict[str, Tensor] = {}
    half: dict[str, Tensor] = {}
    for name, tokens in (("clean", places), ("stamped", stamped)):
        image = Features(F.normalize(tokens.sum(dim=1), dim=-1), tokens, torch.ones(6, 16, dtype=torch.bool))
        for fits, share in ((whole, 1.0), (half, 0.5)):
            fits[name] = torch.stack(worst_ring(image, text, [0], share, *PLANS)).squeeze(-1)
    risen = [(fits["stamped"] - fits["clean"]).mean(dim=1) for fits in (whole, half)]
    assert (risen[0] > 0.02).all()
    assert (risen[1] < risen[0] / 4).all()


def test_padding_has_no_say_in_the_even_mean() -> None:
    rng = torch.Generator().manual_seed(3)
    image = features(rng, 8, 6)
    noise = F.normalize(torch.randn(8, 3, 16, generator=rng), dim=-1)
    hidden = torch.zeros(8, 3, dtype=torch.bool)
    padded = Features(
        image.embedding, torch.cat([image.tokens, noise], 1), torch.cat([image.mask, hidden], 1)
    )
    assert torch.allclose(even(padded), even(image), atol=1e-6)
