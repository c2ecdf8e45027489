"""What the matcher is given: whatever it is, the matches are right, or the call is refused in words."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import DefenseCard
from poisonbench.defenses.otcclip import bounds
from poisonbench.defenses.otcclip.captions import Captions
from poisonbench.defenses.otcclip.coupling import similarity
from poisonbench.defenses.otcclip.matcher import Transport, distances, match
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.defenses.otcclip.transport import Backend

BACKENDS: tuple[Backend, ...] = ("torch", "pot")


def units(seed: int, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def ragged(tokens: Tensor, junk: float) -> TokenSets:
    """Sets whose last two tokens are padding that holds ``junk``."""
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    mask[:, -2:] = False
    return TokenSets.of(tokens.masked_fill(~mask[..., None], junk), mask)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e30])
def test_what_stands_in_the_padding_is_never_read(backend: Backend, junk: float) -> None:
    visual, text, how = units(0, 4, 6, 8), units(1, 9, 5, 8), Transport(backend=backend)
    clean, dirty = (match(ragged(visual, it), ragged(text, it), 2, how=how) for it in (0.0, junk))
    assert torch.equal(clean.index, dirty.index)
    assert torch.allclose(clean.cost, dirty.cost, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_of_the_caller_changes_nothing(backend: Backend) -> None:
    visual, text, how = units(0, 4, 6, 8), units(1, 9, 5, 8), Transport(backend=backend)
    mask = torch.ones(4, 6, dtype=torch.bool)

    def answers() -> list[Tensor]:
        found = match(visual, text, 2, how=how)
        own = similarity(visual, visual.flip(0), mask, mask, 0.1, 10, backend)
        return [found.cost, distances(visual, text, how), own]

    plain = answers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(plain, answers(), strict=True))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.1, 0.3]))
def test_pot_is_held_to_the_same_error_of_the_marginals(seed: int, eps: float) -> None:
    visual, text = units(seed, 2, 24, 6), units(seed + 1, 3, 16, 6)
    ours, pots = (distances(visual, text, Transport(eps=eps, backend=backend)) for backend in BACKENDS)
    assert ((ours - pots).abs() <= (1e-3 * ours).clamp_min(1e-4)).all()


@pytest.mark.parametrize("seed", [17, 26])
def test_tight_clusters_at_little_entropy_converge(seed: int) -> None:
    """Five thousand iterations leave these up to six times the promised error."""
    rng, centres = torch.Generator().manual_seed(seed), units(seed, 4, 3)
    others = F.normalize(centres + 0.1 * units(seed + 1, 4, 3), dim=-1)
    kinds = [
        torch.cat([torch.arange(4), torch.randint(4, (count - 4,), generator=rng)]) for count in (49, 15)
    ]
    usual, patient = (
        float(distances(centres[kinds[0]][None], others[kinds[1]][None], Transport(eps=0.01, iterations=n)))
        for n in (Transport().iterations, 100_000)
    )
    assert abs(usual - patient) <= max(1e-4, 1e-3 * patient)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta": 2.0}, "beta = 2.0 is not between 0 and 1"),
        ({"beta": -0.1}, "beta = -0.1 is not between 0 and 1"),
        ({"scales": (1.0, -1.0)}, "not both positive and finite"),
        ({"scales": (0.0, 1.0)}, "not both positive and finite"),
        ({"scales": (math.nan, 1.0)}, "not both positive and finite"),
        ({"prior": torch.zeros(3, 9)}, r"the prior has the shape \(3, 9\), not \(4, 9\)"),
        ({"prior": torch.zeros(4, 12)}, r"the prior has the shape \(4, 12\)"),
        ({"text": units(1, 0, 5, 8)}, "4 images cannot be matched with 0 captions"),
        ({"visual": units(1, 0, 5, 8)}, "0 images cannot be matched with 9 captions"),
    ],
)
def test_what_would_give_a_wrong_match_is_refused(wrong: dict[str, object], message: str) -> None:
    given_ = {"visual": units(0, 4, 6, 8), "text": units(1, 9, 5, 8), "prior": torch.zeros(4, 9), **wrong}
    visual, text = given_.pop("visual"), given_.pop("text")
    with pytest.raises(ValueError, match=message):
        match(visual, text, **given_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "mass", "message"),
    [
        (torch.ones(3, dtype=torch.bool), None, r"the mask is \(3,\), the tokens \(2, 3, 4\)"),
        (None, torch.ones(2, 5), r"the mass is \(2, 5\)"),
        (None, torch.tensor([[1.0, 2.0, -1.0], [1.0, 1.0, 1.0]]), "negative mass"),
    ],
)
def test_masks_and_masses_fit_the_tokens(mask: Tensor | None, mass: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenSets.of(units(0, 2, 3, 4), mask, mass)


def test_tokens_that_are_no_numbers_are_not_matched_at_random() -> None:
    visual, text = units(0, 4, 6, 8), units(1, 9, 5, 8)
    visual[2] = math.nan
    with pytest.raises(FloatingPointError, match="an image has no best caption"):
        match(visual, text)
    with pytest.raises(FloatingPointError, match="an image has no best caption"):
        match(units(0, 4, 6, 8), text, 1, torch.full((4, 9), math.nan))


def test_a_prior_may_forbid_pairs() -> None:
    visual, text = units(0, 4, 6, 8), units(1, 9, 5, 8)
    prior = torch.zeros(4, 9)
    prior[:, match(visual, text).index[:, 0].unique()] = -math.inf
    found = match(visual, text, 1, prior)
    assert found.score.isfinite().all()
    assert (prior.gather(1, found.index) == 0).all()


def test_copies_of_the_best_caption_are_as_good_as_it_on_a_shortlist() -> None:
    visual, one = units(0, 6, 5, 8), units(1, 3, 4, 8)
    text = one.repeat(4, 1, 1)
    prior = 1 - distances(visual, text, Transport(backend="torch"))
    for listed in (1, 2, 3):
        assert match(visual, text, 1, prior, top_k=listed, audit=6).missed == 0
    same = match(visual, one[:1].repeat(10, 1, 1), 1, torch.zeros(6, 10), top_k=3, audit=6)
    assert same.missed == 0


def test_a_pool_says_how_often_its_shortlist_misses_and_goes_on_counting_after_a_restart() -> None:
    lab = tiny_lab(tiny_data(), DefenseCard(title="test", paper="-", year=2026, track="none"))
    towers = lab.fresh("model").eval()
    ids = lab.tokenizer([options[0] for options in lab.pairs.captions[:80]])
    with torch.inference_mode():
        image, text = (
            towers.image(lab.pairs.images.fetch(torch.arange(40).numpy())),
            towers.text(ids),
        )
    short, whole = (Captions(80, 0.0, Transport(backend="torch"), listed) for listed in (1, 0))
    for pool in (short, whole):
        pool.add(text, ids, torch.arange(80))
        pool.best(image)
    assert whole.missed is None
    assert short.missed == 1, "with beta 0 the cosine, by which the one caption is listed, says nothing"
    again = Captions(80, 0.0, Transport(backend="torch"), 1)
    again.load_state_dict(short.state_dict())
    assert again.missed == short.missed
    again.begin()
    assert again.missed is None


@pytest.mark.parametrize("budget", [1 << 16, 1 << 18])
def test_no_tile_of_products_is_larger_than_the_byte_budget(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, captions, sizes = (
        TokenSets.of(units(0, 6, 16, 8)),
        TokenSets.of(units(1, 300, 12, 8)),
        list[int](),
    )
    usual = bounds.relaxed(images, captions, torch.float32, 1 << 28)
    reduce = bounds._of_tile

    def watched(products: Tensor, *rest: Tensor) -> Tensor:
        sizes.append(products.numel() * products.element_size())
        return reduce(products, *rest)

    monkeypatch.setattr(bounds, "_of_tile", watched)
    assert torch.allclose(bounds.relaxed(images, captions, torch.float32, budget), usual, atol=1e-6)
    assert len(sizes) > 3 and max(sizes) <= budget
