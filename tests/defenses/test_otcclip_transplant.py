"""Transplants: the surroundings of a place, nothing else, arrive at the same place of the host."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.defenses.otcclip.transplant import LARGEST, grid_side, transplanted


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([16, 32, 33]), st.integers(2, 7))
def test_a_square_around_the_place_comes_from_one_donor(seed: int, donors: int, side: int, grid: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    hosts = torch.rand(6, 3, side, side, generator=rng) / 2
    given = 1 + torch.arange(donors).view(-1, 1, 1, 1) + torch.zeros(donors, 3, side, side)
    places = torch.randint(grid * grid, (donors,), generator=rng)
    before = hosts.clone()
    found = transplanted(hosts, given, places, grid, rng)
    assert torch.equal(hosts, before)
    for host, image in zip(hosts, found, strict=True):
        new = (image >= 1).all(dim=0)
        assert torch.equal(image[:, ~new], host[:, ~new])
        (donor,) = (int(value) - 1 for value in image[:, new].unique().tolist())
        rows, columns = new.any(dim=1).nonzero().squeeze(1), new.any(dim=0).nonzero().squeeze(1)
        assert new[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "a square has no holes"
        assert max(len(rows), len(columns)) <= LARGEST * side + 1
        centre = ((divmod(int(places[donor]), grid)[axis] + 0.5) * side / grid for axis in (0, 1))
        for at, covered in zip(centre, (rows, columns), strict=True):
            assert covered[0] <= at <= covered[-1] + 1


@pytest.mark.parametrize(("places", "side"), [(16, 4), (49, 7), (1, 1), (50, 0), (12, 0)])
def test_only_square_grids_have_a_side(places: int, side: int) -> None:
    assert grid_side(places) == side
