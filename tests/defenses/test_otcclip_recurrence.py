"""Recurrence: a region that ill-fitting pairs share is found wherever it is, and nothing else decides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.defenses.otcclip.recurrence import IMAGES, Recurrence
from poisonbench.towers import Features

ROWS, PLACES, WIDTH = 1200, 16, 64
ALONE = torch.arange(ROWS)
BAD = ALONE % 30 == 5
UNFIT = (ALONE % 6 == 0) | (BAD & (ALONE % 60 == 5))
"""A sixth of the clean pairs fit badly, and half of the bad ones."""


def seen(bad: Tensor, seed: int = 0) -> Features:
    """Images of many kinds of regions; the bad ones have one region more or less in common, each in its own place."""
    rng = torch.Generator().manual_seed(seed)
    places = torch.randn(ROWS, PLACES, WIDTH, generator=rng)
    trigger = torch.randn(WIDTH, generator=torch.Generator().manual_seed(99))
    places[bad, ALONE[bad] % PLACES] = trigger + 0.5 * torch.randn(int(bad.sum()), WIDTH, generator=rng)
    tokens = F.normalize(places, dim=-1)
    return Features(F.normalize(places.mean(dim=1), dim=-1), tokens, torch.ones(ROWS, PLACES).bool())


def part(features: Features, rows: Tensor) -> Features:
    return Features(features.embedding[rows], features.tokens[rows], features.mask[rows])


def epoch(recurrence: Recurrence, features: Features, unfit: Tensor = UNFIT) -> Tensor:
    """The verdicts of one epoch in batches."""
    verdicts = []
    for rows in ALONE.split(50):
        verdicts.append(recurrence.recurring(rows, [part(features, rows)], ~unfit[rows]))
        recurrence.add(rows, part(features, rows), unfit[rows], ~unfit[rows])
    return torch.cat(verdicts)


def test_what_ill_fitting_pairs_share_is_found_in_pairs_that_fit_too() -> None:
    recurrence = Recurrence(ALONE, memory=0.0, share=0.05)
    epoch(recurrence, seen(BAD))
    found = epoch(recurrence, seen(BAD))
    assert found[BAD & UNFIT].float().mean() > 0.9
    assert found[BAD & ~UNFIT].float().mean() > 0.9
    assert found[~BAD].float().mean() < 0.05


def test_its_place_is_found() -> None:
    recurrence, features = Recurrence(ALONE, memory=0.0, share=0.1), seen(BAD)
    epoch(recurrence, features)
    rows = ALONE[BAD]
    right = recurrence.place(rows, part(features, rows)) == rows % PLACES
    assert right.float().mean() > 0.95


def test_what_all_images_share_does_not_count() -> None:
    everywhere, features = Recurrence(ALONE, memory=0.0, share=0.05), seen(torch.ones(ROWS).bool())
    epoch(everywhere, features)
    found = epoch(everywhere, features)
    assert found[BAD].float().mean() < 0.3


def test_a_share_is_found_where_nothing_recurs() -> None:
    recurrence = Recurrence(ALONE, memory=0.0, share=0.2)
    for seed in range(3):
        epoch(recurrence, seen(ALONE < 0, seed))
    found = epoch(recurrence, seen(ALONE < 0, seed=3))
    assert found[~UNFIT].float().mean() == pytest.approx(0.2, abs=0.08)


def test_copies_of_a_picture_are_no_crowd() -> None:
    pictures = ALONE // 120
    features = seen(ALONE < 0)
    same = Features(
        features.embedding, features.tokens[pictures * 120], features.mask
    )  # ten pictures, each of them 120 times
    recurrence = Recurrence(pictures, memory=0.0, share=0.1)
    epoch(recurrence, same)
    own = recurrence.by_place(ALONE[:120], part(same, ALONE[:120]))
    assert own.max() < 0.5, "its own copies, at cosine 1, are not asked"


def test_nothing_is_found_before_there_is_anything_to_compare_with() -> None:
    recurrence = Recurrence(ALONE, memory=0.5, share=0.5)
    assert not recurrence.recurring(ALONE[:50], [part(seen(BAD), ALONE[:50])], ALONE[:50] >= 0).any()


def test_the_pools_are_of_equal_size_and_bounded() -> None:
    recurrence = Recurrence(ALONE, memory=0.5, share=0.1)
    for _ in range(3):
        epoch(recurrence, seen(BAD))
        assert len(recurrence.unfit) == len(recurrence.sound) <= IMAGES


def test_padding_is_no_region() -> None:
    features = seen(BAD)
    wider = Features(
        features.embedding,
        torch.cat([features.tokens, torch.ones(ROWS, 2, WIDTH) / WIDTH**0.5], dim=1),
        torch.cat([features.mask, torch.zeros(ROWS, 2).bool()], dim=1),
    )
    plain, padded = (Recurrence(ALONE, memory=0.0, share=0.05) for _ in range(2))
    for recurrence, some in ((plain, features), (padded, wider)):
        epoch(recurrence, some)
    assert (epoch(plain, features) == epoch(padded, wider)).float().mean() > 0.97
    assert (padded.place(ALONE[:50], part(wider, ALONE[:50])) < PLACES).all()


def test_state_goes_on_where_it_was() -> None:
    first = Recurrence(ALONE, memory=0.5, share=0.1)
    epoch(first, seen(BAD))
    second = Recurrence(ALONE, memory=0.5, share=0.1)
    second.load_state_dict(first.state_dict())
    features = seen(BAD, seed=1)
    assert epoch(first, features).tolist() == epoch(second, features).tolist()
