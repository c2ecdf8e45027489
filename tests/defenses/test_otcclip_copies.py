"""Copies: equal pictures share a number, and so does a crowd of cuts from one picture, but nothing that only looks alike."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.augment.images import augment
from poisonbench.defenses.otcclip.copies import (
    CROWD,
    SIDE,
    agreement,
    first_rows,
    pictures,
    with_near_copies,
)
from poisonbench.pairs import ArrayImages

DRAWINGS, COPIES = 40, 10


def test_copies_of_a_picture_share_a_number_and_other_pictures_have_their_own() -> None:
    pixels = torch.randint(256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    copied = ArrayImages(pixels[[0, 1, 2, 1, 3, 4, 0]])
    for batch in (2, 100):
        found = pictures(copied, batch).tolist()
        assert found[0] == found[6] and found[1] == found[3]
        assert sorted(set(found)) == list(range(5))

