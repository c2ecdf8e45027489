"""The matcher: transport plans keep their marginals, ignore padding and order, and agree with POT."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.defenses.otcclip import sinkhorn
from poisonbench.defenses.otcclip.coupling import plan, similarity
from poisonbench.defenses.otcclip.transport import Backend

ENOUGH = 2000
"""Iterations after which the small problems here have converged."""
EPSILONS = (0.05, 0.1, 0.3, 1.0)
BACKENDS: tuple[Backend, ...] = ("torch", "pot")
seeds = st.integers(0, 2**32 - 1)
entropies = st.floats(0.01, 1.0)


@dataclass(frozen=True)
class Problem:
    """A batch of ragged problems: unit tokens (b, m, d) and (b, n, d), and which of them are real."""

    visual: Tensor
    text: Tensor
    visual_mask: Tensor
    text_mask: Tensor

    @property
    def cost(self) -> Tensor:
        return 1 - self.visual @ self.text.transpose(-1, -2)

    def plan(self, eps: float, iterations: int = ENOUGH, backend: Backend = "torch") -> Tensor:
        return plan(self.cost, self.visual_mask, self.text_mask, eps, iterations, backend)

    def similarity(self, eps: float, iterations: int = ENOUGH, backend: Backend = "torch") -> Tensor:
        masks = self.visual_mask, self.text_mask
        return similarity(self.visual, self.text, *masks, eps, iterations, backend)

    def real_costs(self) -> list[np.ndarray]:
        """The cost matrix of every problem without its padding, in float64."""
        masks = zip(self.cost.double(), self.visual_mask, self.text_mask, strict=True)
        return [cost[rows][:, columns].numpy() for cost, rows, columns in masks]


def units(rng: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=rng), dim=-1)


def some(rng: torch.Generator, count: int, size: int) -> Tensor:
    """Masks (count, size) with gaps anywhere, and at least one real token each."""
    mask = torch.rand(count, size, generator=rng) < 0.6
    mask[torch.arange(count), torch.randint(size, (count,), generator=rng)] = True
    return mask


def ragged(seed: int = 0, count: int = 5, m: int = 7, n: int = 5, d: int = 6) -> Problem:
    rng = torch.Generator().manual_seed(seed)
    tokens = units(rng, count, m, d), units(rng, count, n, d)
    return Problem(*tokens, some(rng, count, m), some(rng, count, n))


def uniform(mask: Tensor) -> Tensor:
    return mask.float() / mask.sum(dim=-1, keepdim=True)


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.1, 1.0))
def test_rows_and_columns_carry_equal_mass_over_real_tokens(seed: int, eps: float) -> None:
    problem = ragged(seed, d=32)
    found = problem.plan(eps, 200)
    assert torch.allclose(found.sum(dim=-1), uniform(problem.visual_mask), atol=1e-3)
    assert torch.allclose(found.sum(dim=-2), uniform(problem.text_mask), atol=1e-3)
    assert (found >= 0).all()


@pytest.mark.parametrize("eps", [0.01, 0.1, 1.0])
def test_padding_gets_no_mass_at_all(eps: float) -> None:
    problem = ragged()
    real = problem.visual_mask[:, :, None] & problem.text_mask[:, None, :]
    assert not problem.plan(eps, 50)[~real].any()


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(1, 4), entropies)
def test_more_padding_changes_nothing_whatever_it_holds(seed: int, more: int, eps: float) -> None:
    problem = ragged(seed)
    rng = torch.Generator().manual_seed(seed ^ 1)
    count, _, d = problem.visual.shape
    nothing = torch.zeros(count, more, dtype=torch.bool)
    padded = Problem(
        torch.cat([problem.visual, units(rng, count, more, d)], dim=1),
        torch.cat([problem.text, units(rng, count, more, d)], dim=1),
        torch.cat([problem.visual_mask, nothing], dim=1),
        torch.cat([problem.text_mask, nothing], dim=1),
    )
    assert torch.allclose(padded.similarity(eps, 20), problem.similarity(eps, 20), atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(seeds, entropies)
def test_the_order_of_tokens_does_not_matter(seed: int, eps: float) -> None:
    problem = ragged(seed)
    rng = torch.Generator().manual_seed(seed ^ 2)
    rows, columns = torch.randperm(7, generator=rng), torch.randperm(5, generator=rng)
    shuffled = Problem(
        problem.visual[:, rows],
        problem.text[:, columns],
        problem.visual_mask[:, rows],
        problem.text_mask[:, columns],
    )
    assert torch.allclose(shuffled.similarity(eps, 20), problem.similarity(eps, 20), atol=1e-5)
    assert torch.allclose(shuffled.plan(eps, 20), problem.plan(eps, 20)[:, rows][:, :, columns], atol=1e-5)


@pytest.mark.parametrize("eps", EPSILONS)
def test_the_transport_cost_is_that_of_pot_in_double_precision(eps: float) -> None:
    problem = ragged(3)
    expected = []
    for cost in problem.real_costs():
        solved = ot.sinkhorn([], [], cost, eps, method="sinkhorn_log", numItermax=10_000, stopThr=1e-12)
        expected.append(float((solved * cost).sum()))
    assert (1 - problem.similarity(eps)).tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("eps", EPSILONS)
def test_the_plan_is_that_of_pot_in_double_precision(eps: float) -> None:
    problem = ragged(4)
    for at, cost in enumerate(problem.real_costs()):
        solved = ot.sinkhorn([], [], cost, eps, method="sinkhorn_log", numItermax=10_000, stopThr=1e-12)
        found = problem.plan(eps)[at][problem.visual_mask[at]][:, problem.text_mask[at]]
        assert found.numpy() == pytest.approx(solved, rel=1e-3, abs=1e-6)


@settings(deadline=None, max_examples=5)
@given(seeds, st.floats(0.02, 2 * sinkhorn.GENTLE))
def test_how_a_small_entropy_is_reached_does_not_change_the_plan(seed: int, eps: float) -> None:
    problem = ragged(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sinkhorn, "GENTLE", 0.005)  # no larger entropy comes first
        directly = problem.plan(eps)
    assert torch.allclose(problem.plan(eps), directly, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(seeds, entropies, st.integers(1, 200))
def test_absorbing_the_scalings_changes_nothing(seed: int, eps: float, iterations: int) -> None:
    problem = ragged(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sinkhorn, "ABSORB", 7)
        often = problem.plan(eps, iterations)
    assert torch.allclose(problem.plan(eps, iterations), often, atol=1e-4)


@pytest.mark.parametrize("eps", EPSILONS)
def test_the_pot_backend_agrees_with_ours(eps: float) -> None:
    problem = ragged(5)
    ours, theirs = problem.similarity(eps), problem.similarity(eps, backend="pot")
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_the_pot_backend_takes_problems_in_any_number_of_leading_dimensions() -> None:
    problem = ragged(6, count=6)
    grid = Problem(*(part.unflatten(0, (2, 3)) for part in vars(problem).values()))
    for backend in BACKENDS:
        found = grid.similarity(0.1, 30, backend)
        assert torch.allclose(found.flatten(), problem.similarity(0.1, 30, backend), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_side_is_broadcast_over_candidates(backend: Backend) -> None:
    problem = ragged(7)
    images, masks = problem.visual[:2, None], problem.visual_mask[:2, None]
    texts, text_masks = problem.text.expand(2, 5, 5, 6), problem.text_mask.expand(2, 5, 5)
    found = similarity(images, texts, masks, text_masks, 0.1, 30, backend)
    assert found.shape == (2, 5)
    alone = similarity(problem.visual[1], problem.text[3], masks[1, 0], problem.text_mask[3], 0.1, 30)
    assert float(found[1, 3]) == pytest.approx(float(alone), abs=1e-4)


@settings(deadline=None, max_examples=5)
@given(seeds)
def test_with_little_entropy_the_cost_is_nearly_the_exact_one(seed: int) -> None:
    problem, eps = ragged(seed, count=3), 0.02
    found = (1 - problem.similarity(eps, 3000)).tolist()
    for cost, value in zip(problem.real_costs(), found, strict=True):
        exact = float(ot.emd2([], [], cost))
        # the entropic plan costs at most eps times the smaller marginal entropy more than the best one
        assert exact - 5e-3 <= value <= exact + eps * math.log(min(cost.shape)) + 5e-3


def test_a_set_is_nearly_free_to_move_onto_itself() -> None:
    problem = ragged(8)
    itself = Problem(problem.visual, problem.visual, problem.visual_mask, problem.visual_mask)
    assert torch.allclose(itself.similarity(0.01), torch.ones(5), atol=0.01 * math.log(7))


def test_with_much_entropy_the_cost_is_the_mean_cost() -> None:
    problem = ragged(9)
    expected = [float(cost.mean()) for cost in problem.real_costs()]
    assert (1 - problem.similarity(1e4)).tolist() == pytest.approx(expected, abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(seeds, entropies, st.integers(1, 5))
def test_two_single_tokens_are_as_similar_as_their_cosine(seed: int, eps: float, iterations: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    one, other, real = units(rng, 4, 1, 6), units(rng, 4, 1, 6), torch.ones(4, 1, dtype=torch.bool)
    cosine = (one * other).sum(dim=-1).squeeze(1)
    assert torch.allclose(similarity(one, other, real, real, eps, iterations), cosine, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(seeds, entropies, st.integers(1, 100), st.sampled_from(BACKENDS))
def test_bf16_tokens_give_finite_plans_of_mass_one(
    seed: int, eps: float, iterations: int, backend: Backend
) -> None:
    problem = ragged(seed, d=2)  # in a plane, tokens are often the same or opposite
    rough = Problem(
        problem.visual.bfloat16(), problem.text.bfloat16(), problem.visual_mask, problem.text_mask
    )
    found = rough.plan(eps, iterations, backend)
    assert found.dtype == torch.float32 and found.isfinite().all()
    assert torch.allclose(found.sum(dim=(-1, -2)), torch.ones(5), atol=1e-3)
    assert rough.similarity(eps, iterations, backend).isfinite().all()


@pytest.mark.parametrize("eps", [0.01, sinkhorn.GENTLE, 1.0])
def test_the_largest_possible_costs_are_carried(eps: float) -> None:
    here = torch.tensor([1.0, 0.0]).expand(1, 7, 2)
    problem = Problem(here, -here[:, :5], *(torch.ones(1, k, dtype=torch.bool) for k in (7, 5)))
    assert problem.similarity(eps, 10).tolist() == pytest.approx([-1.0], abs=1e-4)


def test_the_gradient_is_that_of_a_constant_plan() -> None:
    problem = ragged(10)
    visual = problem.visual.clone().requires_grad_()
    tracked = Problem(visual, problem.text, problem.visual_mask, problem.text_mask)
    coupling = tracked.plan(0.1)
    assert not coupling.requires_grad
    tracked.similarity(0.1).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(visual.grad, coupling @ problem.text, atol=1e-6)  # type: ignore[arg-type]
