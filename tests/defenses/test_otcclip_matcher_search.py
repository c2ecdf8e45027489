"""Matching over a whole pool: exact costs, bounds that hold, and the same best captions however they are found."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import ot
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.augment.images import augment
from poisonbench.conformance.data import every
from poisonbench.conformance.defense_rehearsal import rehearsed
from poisonbench.defenses.otcclip import OTCCLIP
from poisonbench.defenses.otcclip import search as searching
from poisonbench.defenses.otcclip.bounds import relaxed
from poisonbench.defenses.otcclip.matcher import Transport, distances, match
from poisonbench.defenses.otcclip.scales import Running
from poisonbench.defenses.otcclip.sinkhorn import Problems
from poisonbench.defenses.otcclip.solvers import Solver, TorchSolver
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.defenses.otcclip.transport import Backend
from poisonbench.errors import UserError
from poisonbench.settings import validated

seeds = st.integers(0, 2**32 - 1)
TORCH = Transport(backend="torch")
TYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Sides:
    """Images and captions with masks and masses, as a user has them."""

    images: TokenSets
    captions: TokenSets

    def exact(self) -> Tensor:
        """The least transport cost of every pair, by POT's network simplex in float64."""
        return self._each(lambda a, b, cost: ot.emd2(a, b, cost))

    def entropic(self, eps: float) -> Tensor:
        """The converged entropic transport cost of every pair, by POT in float64."""

        def solved(a: object, b: object, cost: object) -> float:
            plan = ot.sinkhorn(
                a, b, cost, eps, method="sinkhorn_log", numItermax=50_000, stopThr=1e-9, warn=False
            )
            return float((plan * cost).sum())

        return self._each(solved)

    def _each(self, solve: object) -> Tensor:
        rows = [[self._one(i, p, solve) for p in range(len(self.captions))] for i in range(len(self.images))]
        return torch.tensor(rows, dtype=torch.float64)

    def _one(self, i: int, p: int, solve: object) -> float:
        (v, a), (u, b) = (
            (sets.tokens[at, : sets.length[at]].double(), sets.mass[at, : sets.length[at]].double())
            for sets, at in ((self.images, i), (self.captions, p))
        )
        cost = (1 - v @ u.T).clamp_min(0)
        return float(solve((a / a.sum()).numpy(), (b / b.sum()).numpy(), cost.numpy()))  # type: ignore[operator]


def units(rng: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=rng), dim=-1)


def sets(rng: torch.Generator, count: int, tokens: int, d: int, *, uniform: bool) -> TokenSets:
    mask = torch.rand(count, tokens, generator=rng) < 0.7
    mask[torch.arange(count), torch.randint(tokens, (count,), generator=rng)] = True
    mass = None if uniform else torch.rand(count, tokens, generator=rng) + 0.05
    return TokenSets.of(units(rng, count, tokens, d), mask, mass)


def sides(
    seed: int, b: int = 3, p: int = 8, m: int = 7, n: int = 5, d: int = 6, *, uniform: bool = False
) -> Sides:
    rng = torch.Generator().manual_seed(seed)
    return Sides(sets(rng, b, m, d, uniform=uniform), sets(rng, p, n, d, uniform=uniform))


def clustered(seed: int, b: int, p: int, m: int = 16, n: int = 9, d: int = 32) -> Sides:
    """Captions and images of a few kinds, as a trained model embeds them: tokens scatter around a centre of their kind."""
    rng = torch.Generator().manual_seed(seed)
    centres = units(rng, 12, 1, d)

    def drawn(count: int, tokens: int) -> Tensor:
        kind = torch.randint(len(centres), (count,), generator=rng)
        return F.normalize(centres[kind] + 0.6 * units(rng, count, tokens, d), dim=-1)

    return Sides(TokenSets.of(drawn(b, m)), TokenSets.of(drawn(p, n)))


def within_tolerance(found: Tensor, expected: Tensor) -> bool:
    """The accuracy promised: relative 1e-3, with an absolute floor of 1e-4."""
    return bool(((found - expected).abs() <= (1e-3 * expected).clamp_min(1e-4)).all())


@pytest.mark.parametrize("eps", [0.01, 0.03, 0.1, 0.3, 1.0])
def test_distances_are_the_converged_ones_of_pot_in_double_precision(eps: float) -> None:
    problem = sides(0)
    found = distances(problem.images, problem.captions, Transport(eps=eps, backend="torch"))
    assert within_tolerance(found.double(), problem.entropic(eps))


@settings(deadline=None, max_examples=10)
@given(seeds)
def test_with_little_entropy_distances_are_the_exact_ones_and_never_below(seed: int) -> None:
    problem, eps = sides(seed, 2, 4, 5, 4), 0.005
    found, exact = distances(problem.images, problem.captions, Transport(eps=eps)).double(), problem.exact()
    assert (found >= exact - 1e-6).all()
    assert (found <= exact + eps * math.log(4) + 1e-4).all()


@settings(deadline=None, max_examples=25)
@given(seeds, st.sampled_from(TYPES), st.integers(2, 40), st.booleans(), st.booleans())
def test_bounds_never_exceed_the_transport_cost(
    seed: int, dtype: torch.dtype, d: int, wide: bool, uniform: bool
) -> None:
    m, n = (7, 5) if wide else (4, 6)
    problem = sides(seed, 3, 5, m, n, d, uniform=uniform)
    found = relaxed(problem.images, problem.captions, dtype, budget=1 << 16)
    assert (found <= problem.exact() + 1e-6).all()


@settings(deadline=None, max_examples=15)
@given(seeds, st.floats(0.01, 1.0), st.integers(0, 30))
def test_bounds_from_potentials_hold_after_any_number_of_iterations(
    seed: int, eps: float, steps: int
) -> None:
    problem = sides(seed, 1, 5)
    images = problem.images.tokens.expand(5, -1, -1)
    cost = 1 - images @ problem.captions.tokens.transpose(1, 2)
    running = Problems.of(cost, problem.images.mass.expand(5, -1), problem.captions.mass)
    exact = problem.exact()[0]
    assert (running.reduced_bound() <= exact + 1e-6).all()
    running.enter(eps)
    for _ in range(steps):
        running.update()
    assert (running.dual_bound(eps) <= exact + 1e-5).all()


def test_bounds_of_one_nearest_token_each_are_the_relaxed_cost() -> None:
    problem = sides(3, d=16)
    found = relaxed(problem.images, problem.captions, torch.float32, budget=1 << 16)
    for i in range(len(problem.images)):
        for p in range(len(problem.captions)):
            v, u = (
                side.tokens[at, : side.length[at]]
                for side, at in ((problem.images, i), (problem.captions, p))
            )
            nearest = (1 - v @ u.T).amin(dim=1) @ problem.images.mass[i, : len(v)]
            assert found[i, p] >= nearest - 1e-5


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(1, 8), st.sampled_from([0.02, 0.1, 0.5]))
def test_the_best_captions_are_those_of_all_distances(seed: int, k: int, eps: float) -> None:
    problem, how = sides(seed), Transport(eps=eps, backend="torch")
    every = distances(problem.images, problem.captions, how)
    found = match(problem.images, problem.captions, k, how=how)
    assert torch.allclose(found.cost, every.sort(dim=1).values[:, :k], atol=1e-4)
    assert torch.allclose(every.gather(1, found.index), found.cost, atol=1e-4)
    assert torch.equal(found.score, -found.cost)


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(1, 3), st.floats(0, 1), st.tuples(st.floats(0.1, 2), st.floats(0.1, 2)))
def test_the_best_mixed_scores_are_found_whatever_weights_and_scales(
    seed: int, k: int, beta: float, scales: tuple[float, float]
) -> None:
    problem = sides(seed)
    prior = 2 * torch.rand(3, 8, generator=torch.Generator().manual_seed(seed)) - 1
    every = distances(problem.images, problem.captions, TORCH)
    score = beta * prior / scales[0] + (1 - beta) * (1 - every) / scales[1]
    found = match(problem.images, problem.captions, k, prior, beta=beta, scales=scales, how=TORCH)
    assert torch.allclose(found.score, score.topk(k, dim=1).values, atol=2e-3)
    assert torch.allclose(found.score, score.gather(1, found.index), atol=2e-3)


def test_with_all_weight_on_the_prior_it_decides_alone() -> None:
    problem = sides(5)
    prior = torch.rand(3, 8, generator=torch.Generator().manual_seed(5))
    found = match(problem.images, problem.captions, 2, prior, beta=1.0, how=TORCH)
    assert torch.equal(found.index, prior.topk(2, dim=1).indices)


@pytest.mark.parametrize("eps", [0.03, 0.1])
def test_most_pairs_are_never_solved_and_the_matches_are_pots(eps: float) -> None:
    problem = clustered(1, 6, 150)
    ours = match(problem.images, problem.captions, 2, how=Transport(eps=eps, backend="torch"))
    pots = match(problem.images, problem.captions, 2, how=Transport(eps=eps, backend="pot"))
    assert pots.solved == 1
    assert ours.solved < 0.5
    assert torch.equal(ours.index, pots.index)
    assert torch.allclose(ours.cost, pots.cost, atol=1e-4)


def agreement(problem: Sides) -> float:
    """Share of images whose match is the best of POT's costs in float64, or as good as that one."""
    from ot.batch import solve_batch

    found = match(problem.images, problem.captions, how=TORCH).index[:, 0]
    best = []
    for i, chosen in enumerate(found):
        cost = 1 - problem.images.tokens[i].double() @ problem.captions.tokens.double().transpose(1, 2)
        a = problem.images.mass[i].double().expand(len(cost), -1)
        b = problem.captions.mass.double() + 1e-15
        plan = solve_batch(
            cost, 0.1, a=a, b=b, max_iter=1000, tol=1e-8, method="sinkhorn", grad="detach"
        ).plan
        costs = (plan * cost).sum(dim=(1, 2))
        best.append(bool(costs[chosen] <= costs.min() + 1e-5))
    return sum(best) / len(best)


def test_the_best_caption_is_that_of_double_precision_for_random_tokens() -> None:
    assert agreement(clustered(2, 1000, 24, m=8, n=6)) >= 0.999


def test_the_best_caption_is_that_of_double_precision_for_a_trained_models_tokens() -> None:
    """The tokens of a tiny model after OTCCLIP's training, a thousand queries: its images in nine augmented views."""
    run = rehearsed(OTCCLIP)
    pairs, towers, rng = run.data.train, run.towers.eval(), torch.Generator().manual_seed(0)
    pictures = every(pairs.images)[:112]
    with torch.inference_mode():
        views = [towers.image(augment(pictures, "light", rng)) for _ in range(9)]
        text = towers.text(run.lab.tokenizer([options[0] for options in pairs.captions[:24]]))
    images = TokenSets.of(
        torch.cat([view.tokens for view in views]), torch.cat([view.mask for view in views])
    )
    assert len(images) >= 1000
    assert agreement(Sides(images, TokenSets.of(text.tokens, text.mask))) >= 0.999


@settings(deadline=None, max_examples=10)
@given(seeds, st.integers(1, 4))
def test_neither_order_nor_padding_changes_costs_or_matches(seed: int, more: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    visual, text = units(rng, 2, 7, 6), units(rng, 8, 5, 6)
    mask = torch.rand(8, 5, generator=rng) < 0.7
    mask[:, 2] = True
    plain = match(visual, TokenSets.of(text, mask), 3, how=TORCH)
    pool, places = torch.randperm(8, generator=rng), torch.randperm(5 + more, generator=rng)
    padded = torch.cat([text, units(rng, 8, more, 6)], dim=1)[pool][:, places]
    padded_mask = torch.cat([mask, torch.zeros(8, more, dtype=torch.bool)], dim=1)[pool][:, places]
    images = visual[:, torch.randperm(7, generator=rng)]
    other = match(images, TokenSets.of(padded, padded_mask), 3, how=TORCH)
    assert torch.allclose(plain.cost, other.cost, atol=1e-4)
    every = distances(visual, TokenSets.of(text, mask), TORCH)
    assert torch.allclose(every.gather(1, pool[other.index]), plain.cost, atol=1e-4)


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.01, 1.0), st.integers(2, 3))
def test_bf16_tokens_give_finite_costs(seed: int, eps: float, d: int) -> None:
    problem = sides(seed, d=d)  # in a plane, tokens are often the same or opposite
    rough = [replace(side, tokens=side.tokens.bfloat16()) for side in (problem.images, problem.captions)]
    found = distances(*rough, Transport(eps=eps, backend="torch", iterations=200))
    assert found.dtype == torch.float32
    assert found.isfinite().all() and (found >= -0.02).all() and (found <= 2.02).all()


def test_no_block_of_problems_is_larger_than_the_byte_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = clustered(4, 8, 60)
    generous = match(problem.images, problem.captions, 2, how=TORCH)
    sizes = []

    def watched(self: Solver, image: Tensor, caption: Tensor, ceiling: Tensor | None) -> Tensor:
        cost, _, _ = self._problems(image, caption)
        sizes.append(cost.numel() * cost.element_size())
        return solve(self, image, caption, ceiling)

    solve = TorchSolver._costs
    monkeypatch.setattr(TorchSolver, "_costs", watched)
    budget = 1 << 16
    frugal = match(problem.images, problem.captions, 2, how=Transport(backend="torch", budget=budget))
    assert len(sizes) > 3 and max(sizes) <= budget
    assert torch.equal(frugal.index, generous.index)


def test_a_shortlist_says_how_often_it_misses() -> None:
    problem = clustered(6, 10, 40)
    cost = distances(problem.images, problem.captions, TORCH)
    for prior, missed in ((1 - cost, 0.0), (cost, 1.0)):
        found = match(problem.images, problem.captions, 1, prior, beta=0.0, top_k=4, audit=10, how=TORCH)
        assert found.missed == missed
        assert found.solved == pytest.approx(4 / 40)
    assert match(problem.images, problem.captions, 1, 1 - cost, top_k=4, audit=0, how=TORCH).missed is None
    assert match(problem.images, problem.captions, 1, 1 - cost, how=TORCH).missed is None


def test_a_shortlist_as_long_as_the_pool_is_exact() -> None:
    problem = sides(7)
    prior = torch.rand(3, 8, generator=torch.Generator().manual_seed(7))
    exact = match(problem.images, problem.captions, 2, prior, how=TORCH)
    short = match(problem.images, problem.captions, 2, prior, top_k=8, how=TORCH)
    assert torch.equal(exact.index, short.index) and short.missed == 0


def test_more_rounds_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = clustered(8, 5, 80)
    usual = match(problem.images, problem.captions, 3, how=TORCH)
    monkeypatch.setattr(searching, "ROUNDS", (1, 2, 5, 11))
    assert torch.equal(match(problem.images, problem.captions, 3, how=TORCH).index, usual.index)


def test_what_cannot_be_matched_is_refused() -> None:
    visual, text = torch.ones(2, 3, 1), torch.ones(4, 3, 1)
    with pytest.raises(ValueError, match="k = 5 captions cannot be taken from a pool of 4"):
        match(visual, text, 5)
    with pytest.raises(ValueError, match="give a prior"):
        match(visual, text, top_k=2)
    with pytest.raises(ValueError, match="top_k = 1 captions are fewer than k = 2"):
        match(visual, text, 2, torch.zeros(2, 4), top_k=1)
    with pytest.raises(ValueError, match="at least one real token"):
        TokenSets.of(text, torch.zeros(4, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eps": 0.0}, "field 'eps'"),
        ({"backend": "cuda"}, "field 'backend'"),
        ({"epsilon": 0.1}, "unknown field 'epsilon'; did you mean 'eps'"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validated(Transport, values, "transport")


def test_a_backend_that_cannot_run_here_says_what_can() -> None:
    backend: Backend = "triton"
    with pytest.raises(UserError, match="use 'torch' or 'auto'"):
        distances(torch.ones(1, 2, 1), torch.ones(1, 2, 1), Transport(backend=backend))


def test_running_scales_follow_the_spreads_and_survive_a_restart() -> None:
    scales, rng = Running(memory=0.5), torch.Generator().manual_seed(0)
    assert scales.now == (1.0, 1.0)
    wide, narrow = torch.randn(40, 50, generator=rng), 0.1 * torch.randn(40, 50, generator=rng)
    scales.look(wide, narrow)
    assert scales.now == pytest.approx((1.0, 0.1), rel=0.1)
    scales.look(3 * wide, narrow)
    assert scales.now == pytest.approx((2.0, 0.1), rel=0.1)
    again = Running(memory=0.5)
    again.load_state_dict(scales.state_dict())
    assert again.now == scales.now
