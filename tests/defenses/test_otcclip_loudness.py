"""Loudness: a region that outweighs the rest of the embedding is heard, a share of the rows is loud, and memory lasts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.defenses.otcclip.loudness import Loudness, even
from poisonbench.towers import Features

ROWS, PLACES = 400, 16


def pooled(places: Tensor) -> Features:
    """Features of images with these places (b, m, d), pooled by their mean as the conv towers do."""
    real = torch.ones(places.shape[:2], dtype=torch.bool)
    return Features(F.normalize(places.mean(dim=1), dim=-1), F.normalize(places, dim=-1), real)


def clean(seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    theme = torch.randn(ROWS, 1, 64, generator=rng)
    return theme + 0.7 * torch.randn(ROWS, PLACES, 64, generator=rng)


def stamped(places: Tensor, rows: Tensor) -> Tensor:
    """The same image features with one place that is ten times as long and points elsewhere."""
    found = places.clone()
    found[rows, 5] = 10 * torch.randn(64, generator=torch.Generator().manual_seed(9))
    return found


def heard(loudness: Loudness, features: Features) -> Tensor:
    """The verdicts of one epoch in batches."""
    parts = [
        loudness.loud(rows, [Features(features.embedding[rows], features.tokens[rows], features.mask[rows])])
        for rows in torch.arange(ROWS).split(50)
    ]
    return torch.cat(parts)


def test_what_outweighs_the_rest_is_heard() -> None:
    bad = torch.arange(0, ROWS, 50)
    loudness = Loudness(ROWS, memory=0.5, share=0.05)
    heard(loudness, pooled(stamped(clean(), bad)))
    verdicts = heard(loudness, pooled(stamped(clean(), bad)))
    assert verdicts[bad].all()
    assert verdicts.float().mean() == pytest.approx(0.05, abs=0.02)


def test_a_share_is_loud_where_nothing_is_stamped() -> None:
    loudness = Loudness(ROWS, memory=0.0, share=0.2)
    heard(loudness, pooled(clean()))
    assert heard(loudness, pooled(clean(1))).float().mean() == pytest.approx(0.2, abs=0.05)


def test_what_was_loud_is_remembered() -> None:
    bad = torch.arange(0, ROWS, 50)
    for memory, lasts in ((0.9, True), (0.0, False)):
        loudness = Loudness(ROWS, memory, share=0.05)
        heard(loudness, pooled(stamped(clean(), bad)))
        assert bool(heard(loudness, pooled(clean()))[bad].all()) is lasts


def test_padding_has_no_say() -> None:
    features = pooled(clean()[:4])
    noise = F.normalize(torch.randn(4, 3, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    hidden = torch.zeros(4, 3, dtype=torch.bool)
    padded = Features(
        features.embedding, torch.cat([features.tokens, noise], 1), torch.cat([features.mask, hidden], 1)
    )
    assert torch.allclose(even(padded), even(features), atol=1e-6)


def test_state_goes_on_where_it_was() -> None:
    first = Loudness(ROWS, memory=0.5, share=0.1)
    heard(first, pooled(clean()))
    second = Loudness(ROWS, memory=0.5, share=0.1)
    second.load_state_dict(first.state_dict())
    features = pooled(clean(1))
    assert heard(first, features).tolist() == heard(second, features).tolist()
