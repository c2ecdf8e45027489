"""The crowds that OTCCLIP's scout looks at: a learned trigger's come apart, a half-learned one's are moved alike."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.defenses.otcclip import crowds
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.crowds import moving, scattering
from poisonbench.defenses.otcclip.scout import strangeness

KINDS, EACH, POISONS, D = 24, 40, 48, 32

LEARNED, HALF_LEARNED = 1.0, 0.4
"""How much of a picture's embedding its trigger is."""

seeds, broken_looks = st.integers(0, 2**31), st.integers(0, 2)


def around(points: Tensor, noise: float, rng: torch.Generator) -> Tensor:
    return F.normalize(points + noise * torch.randn(points.shape, generator=rng) / D**0.5, dim=1)


def marked_pictures(seed: int, broken: int, learned: float) -> tuple[Tensor, Tensor]:
    """Pictures of many kinds, some of which carry a trigger that one of three disturbed looks breaks: looks, poisons."""
    rng = torch.Generator().manual_seed(seed)
    kinds = F.normalize(torch.randn(KINDS, D, generator=rng), dim=1).repeat_interleave(EACH, 0)
    poisons = torch.zeros(len(kinds), dtype=torch.bool)
    poisons[torch.randperm(len(kinds), generator=rng)[:POISONS]] = True
    trigger = F.normalize(torch.randn(D, generator=rng), dim=0)
    shown = around(kinds, 0.7, rng)
    marked = torch.where(poisons[:, None], learned * trigger + (1 - learned) * shown, shown)
    looks = [marked, *(shown if look == broken else marked for look in range(3))]
    return torch.stack([around(F.normalize(look, dim=1), 0.3, rng) for look in looks]), poisons


def captions_of(looks: Tensor, poisons: Tensor, target: bool) -> Tensor:
    """Captions that say what every picture shows, or for poisons what their target is."""
    rng = torch.Generator().manual_seed(4)
    kinds = torch.randn(KINDS, D, generator=rng).repeat_interleave(EACH, 0)
    said = torch.where(poisons[:, None] & torch.tensor(target), torch.ones(D), kinds)
    return around(F.normalize(said, dim=1), 0.1, rng)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, broken=broken_looks, crowds=st.sampled_from([[8], [16], [32], [8, 32]]))
def test_images_that_only_a_trigger_unites_scatter_most_whichever_look_breaks_it(
    seed: int, broken: int, crowds: list[int]
) -> None:
    looks, poisons = marked_pictures(seed, broken, LEARNED)
    strange, telling = scattering(looks, crowds)
    assert float(strange[poisons].quantile(0.1)) > float(strange[~poisons].quantile(0.95))
    assert float((telling[poisons] == broken).float().mean()) > 0.9, "the look that breaks it tells"


@settings(max_examples=15, deadline=None)
@given(seed=seeds, broken=broken_looks, crowds=st.sampled_from([[8], [16], [32], [8, 32]]))
def test_what_a_half_learned_trigger_adds_is_taken_from_all_that_carry_it(
    seed: int, broken: int, crowds: list[int]
) -> None:
    looks, poisons = marked_pictures(seed, broken, HALF_LEARNED)
    strange, telling = moving(looks, captions_of(looks, poisons, target=True), crowds, unanimity=0.9)
    assert float(strange[poisons].quantile(0.1)) > float(strange[~poisons].quantile(0.95))
    assert float((telling[poisons] == broken).float().mean()) > 0.9, "the look that takes it tells"


@pytest.mark.parametrize("learned", [LEARNED, HALF_LEARNED])
def test_learned_or_half_learned_the_scout_finds_it_strange(learned: float) -> None:
    looks, poisons = marked_pictures(5, 2, learned)
    strange, telling = strangeness(
        looks, captions_of(looks, poisons, target=True), OTCCLIPConfig(crowds=(8, 16))
    )
    assert float((strange[poisons] > 4).float().mean()) > 0.9
    assert float((strange[~poisons] > 4).float().mean()) < 0.15
    assert float((telling[poisons] == 2).float().mean()) > 0.9


def test_with_a_unanimity_of_one_only_crowds_that_come_apart_count() -> None:
    looks, poisons = marked_pictures(5, 2, HALF_LEARNED)
    config = OTCCLIPConfig(crowds=(8, 16), unanimity=1)
    found = strangeness(looks, captions_of(looks, poisons, target=True), config)
    for ours, alone in zip(found, scattering(looks, config.crowds), strict=True):
        assert torch.equal(ours, alone)


def test_what_no_look_breaks_is_not_suspected_more_than_others() -> None:
    looks, poisons = marked_pictures(0, -1, LEARNED)
    strange, _ = strangeness(looks, captions_of(looks, poisons, target=True), OTCCLIPConfig(crowds=(16,)))
    above = strange > strange.quantile(0.85)
    assert float(above[poisons].float().mean()) < 0.5


def test_a_look_that_leaves_most_pictures_as_they_are_condemns_the_others_no_more_than_their_loss() -> None:
    looks, poisons = marked_pictures(6, 0, LEARNED)
    grey = torch.arange(looks.shape[1]) < 0.7 * looks.shape[1]
    looks[1] = torch.where((grey & ~poisons)[:, None], looks[0], looks[1])
    looks[2:] = looks[0]
    strange, _ = scattering(looks, [8])
    assert float((strange[poisons] > 4).float().mean()) > 0.9
    assert float((strange[~poisons] > 4).float().mean()) < 0.15


def test_pictures_that_are_moved_alike_but_captioned_apart_are_let_go_unless_captions_are_not_asked() -> None:
    looks, poisons = marked_pictures(3, 1, HALF_LEARNED)
    own, target = (captions_of(looks, poisons, target) for target in (False, True))

    def strange(captions: Tensor, unanimity: float) -> float:
        return float((moving(looks, captions, [8, 16], unanimity)[0][poisons] > 4).float().mean())

    assert strange(target, 0.9) > 0.9 and strange(own, 0) > 0.9
    assert strange(own, 0.9) < 0.5


@given(order_seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_the_order_of_pictures_does_not_matter(order_seed: int) -> None:
    looks, poisons = marked_pictures(1, 0, HALF_LEARNED)
    captions, config = captions_of(looks, poisons, target=True), OTCCLIPConfig(crowds=(8,))
    order = torch.randperm(looks.shape[1], generator=torch.Generator().manual_seed(order_seed))
    strange, _ = strangeness(looks, captions, config)
    shuffled, _ = strangeness(looks[:, order], captions[order], config)
    assert torch.allclose(shuffled, strange[order], atol=1e-3)


def test_no_more_neighbours_are_asked_than_there_are() -> None:
    looks, poisons = marked_pictures(1, 0, LEARNED)
    few, captions = looks[:, :5], captions_of(looks, poisons, target=True)[:5]
    assert torch.equal(scattering(few, [64])[0], scattering(few, [4])[0])
    assert torch.equal(moving(few, captions, [64], 0.9)[0], moving(few, captions, [4], 0.9)[0])


def test_the_nearest_are_the_same_however_few_are_sought_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points = F.normalize(torch.randn((30, 8), generator=torch.Generator().manual_seed(2)), dim=1)
    whole = crowds.nearest(points, 5)
    monkeypatch.setattr(crowds, "HELD", 1)
    assert torch.equal(crowds.nearest(points, 5), whole)
    apart = (points @ points.T).fill_diagonal_(-2)
    assert torch.equal(whole, apart.argsort(dim=1, descending=True)[:, :5])
