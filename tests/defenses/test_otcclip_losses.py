"""OT objectives: their gradients are right, and rows without weight or with a shared caption do no harm."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import DefenseCard
from poisonbench.defenses.otcclip.coupling import Gradient, plan, similarity
from poisonbench.defenses.otcclip.losses import Form, aligned, weighted, weighted_clip
from poisonbench.defenses.otcclip.rings import transport_ring
from poisonbench.losses import clip_loss
from poisonbench.towers import Features

ROWS, SHIFTS, EPS, ITERATIONS = 5, [0, 3, 1], 0.1, 30
SCALE = torch.tensor(7.0, dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 0.25, 1.0, 0.0, 0.5], dtype=torch.float64)
forms = pytest.mark.parametrize("form", get_args(Form))
seeds = st.integers(0, 2**32 - 1)


def units(seed: int, *shape: int) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(drawn, dim=-1)


def features(seed: int, tokens: int, padding: int = 0) -> Features:
    """Features whose rows have ``tokens`` places; the last of row 0 and ``padding`` of all are not real."""
    mask = torch.ones(ROWS, tokens, dtype=torch.bool)
    mask[0, -1] = False
    mask[:, tokens - padding :] = False
    return Features(units(seed, ROWS, 6), units(seed + 1, ROWS, tokens, 6), mask)


def fitted(first: Features, second: Features) -> Tensor:
    return transport_ring(first, second, SHIFTS, EPS, ITERATIONS, "torch")


def plans(first: Features, second: Features) -> list[Tensor]:
    """The transport plan of every offset of the ring."""
    found = []
    for shift in SHIFTS:
        partner = (torch.arange(ROWS) + shift) % ROWS
        cost = 1 - first.tokens @ second.tokens[partner].transpose(1, 2)
        found.append(plan(cost, first.mask, second.mask[partner], EPS, ITERATIONS).double())
    return found


def with_plans(first: Tensor, second: Tensor, held: list[Tensor], form: Form) -> Tensor:
    """The objective of two token sets whose plans are held fixed, so that it can be differentiated numerically."""
    columns = []
    for shift, coupling in zip(SHIFTS, held, strict=True):
        cost = 1 - first @ second[(torch.arange(ROWS) + shift) % ROWS].transpose(1, 2)
        columns.append(1 - (coupling * cost).sum(dim=(1, 2)))
    return aligned(torch.stack(columns, dim=1), SHIFTS, WEIGHTS, torch.arange(len(WEIGHTS)), SCALE, form)


def test_the_ring_holds_every_row_with_the_row_that_is_a_shift_away() -> None:
    image, text = features(0, 4), features(2, 5, padding=2)
    fit = fitted(image, text)
    for k, shift in enumerate(SHIFTS):
        for i in range(ROWS):
            j = (i + shift) % ROWS
            alone = similarity(image.tokens[i], text.tokens[j], image.mask[i], text.mask[j], EPS, ITERATIONS)
            assert float(fit[i, k]) == pytest.approx(float(alone), abs=1e-6)


@forms
def test_the_gradient_equals_finite_differences_with_the_plan_held_fixed(form: Form) -> None:
    image, text = features(0, 3), features(2, 4, padding=1)
    held, ends = plans(image, text), (image.tokens.requires_grad_(), text.tokens.requires_grad_())
    objective = aligned(fitted(image, text), SHIFTS, WEIGHTS, torch.arange(len(WEIGHTS)), SCALE, form)
    fixed = with_plans(*ends, held, form)
    assert objective.item() == pytest.approx(fixed.item(), abs=1e-9)
    for found, expected in zip(
        torch.autograd.grad(objective, ends), torch.autograd.grad(fixed, ends), strict=True
    ):
        assert torch.allclose(found, expected, atol=1e-9)
    assert torch.autograd.gradcheck(lambda one, other: with_plans(one, other, held, form), ends)


def value(visual: Tensor, text: Tensor, gradient: Gradient) -> Tensor:
    """Similarities of ragged problems, iterated until they no longer change."""
    real = [features(at, side.shape[1]).mask for at, side in ((0, visual), (1, text))]
    return similarity(visual, text, *real, 0.3, 300, "torch", gradient)


def test_the_envelope_gradient_is_that_of_the_entropic_value_solved_anew() -> None:
    ends = units(0, ROWS, 3, 6).requires_grad_(), units(1, ROWS, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda one, other: value(one, other, "envelope"), ends, atol=1e-6)


def test_detached_and_envelope_return_other_numbers_with_the_same_gradient() -> None:
    ends = units(0, ROWS, 3, 6).requires_grad_(), units(1, ROWS, 4, 6).requires_grad_()
    transport, entropic = value(*ends, "detached"), value(*ends, "envelope")
    assert (entropic < transport).all()
    for one, other in zip(
        torch.autograd.grad(transport.sum(), ends), torch.autograd.grad(entropic.sum(), ends), strict=True
    ):
        assert torch.equal(one, other)
    # what leaving out the plan's own movement costs: the detached gradient is not that of its number
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(lambda one, other: value(one, other, "detached"), ends, atol=1e-6)


@forms
@pytest.mark.parametrize("gradient", get_args(Gradient))
def test_bf16_tokens_give_finite_losses_and_gradients(form: Form, gradient: Gradient) -> None:
    image, text = features(0, 3), features(2, 4, padding=1)
    rough = [replace(side, tokens=side.tokens.bfloat16().requires_grad_()) for side in (image, text)]
    fit = transport_ring(rough[0], rough[1], SHIFTS, EPS, ITERATIONS, "torch", gradient)
    assert fit.dtype == torch.float32
    loss = aligned(fit, SHIFTS, WEIGHTS.float(), torch.arange(ROWS), SCALE.float(), form)
    loss.backward()  # type: ignore[no-untyped-call]
    for side in rough:
        assert loss.isfinite() and side.tokens.grad is not None
        assert side.tokens.grad.isfinite().all() and side.tokens.grad.any()


@forms
def test_both_token_sets_are_moved_but_not_their_padding(form: Form) -> None:
    image, text = features(0, 3), features(2, 4, padding=1)
    for part in (image, text):
        part.tokens.requires_grad_()
    aligned(
        fitted(image, text), SHIFTS, torch.ones(ROWS), torch.arange(len(torch.ones(ROWS))), SCALE, form
    ).backward()  # type: ignore[no-untyped-call]
    for part in (image, text):
        gradient = part.tokens.grad
        assert gradient is not None and gradient[part.mask].abs().sum(dim=-1).all()
        assert not gradient[~part.mask].any()


@forms
def test_both_towers_are_trained(form: Form) -> None:
    lab = tiny_lab(tiny_data(), DefenseCard(title="test", paper="-", year=2026, track="none"))
    towers, batch = lab.fresh("model"), lab.pairs.images.fetch(torch.arange(6).numpy())
    captions = [lab.pairs.captions[row][0] for row in range(6)]
    fit = fitted(towers.image(batch), towers.text(lab.tokenizer(captions)))
    aligned(fit, SHIFTS, torch.ones(6), torch.arange(len(torch.ones(6))), towers.scale, form).backward()  # type: ignore[no-untyped-call]
    for tower in (towers.model.visual, towers.model.text):
        reached = [p.grad for p in tower.parameters() if p.grad is not None]
        assert reached and any(gradient.any() for gradient in reached)
        assert all(gradient.isfinite().all() for gradient in reached)


def test_the_contrastive_form_ranks_the_pair_above_others_in_both_directions() -> None:
    fit = torch.full((ROWS, len(SHIFTS)), 0.2, dtype=torch.float64)
    fit[:, 0] = 0.9
    sharp = torch.tensor(100.0)
    assert float(
        aligned(fit, SHIFTS, torch.ones(ROWS), torch.arange(len(torch.ones(ROWS))), sharp, "contrastive")
    ) == pytest.approx(0, abs=1e-9)
    # image 0 likes the caption of row 3 (offset 3) best: one image and one caption are lost, of five each
    fit[0, 1] = 1.0
    lost = aligned(fit, SHIFTS, torch.ones(ROWS), torch.arange(len(torch.ones(ROWS))), sharp, "contrastive")
    assert float(lost) == pytest.approx((10 / 5 + 10 / 5) / 2, rel=1e-3)
    by_image, by_caption = (F.one_hot(torch.tensor(row), ROWS).double() for row in (0, 3))
    for weights, expected in (
        (by_image.clamp_min(1e-9), 5.0),  # rows of weight 0 would be no negatives
        (by_caption.clamp_min(1e-9), 5.0),
        (1 - by_image - by_caption, 0.0),
    ):
        found = float(aligned(fit, SHIFTS, weights, torch.arange(len(weights)), sharp, "contrastive"))
        assert found == pytest.approx(expected, abs=1e-3)


def test_the_positive_form_is_the_mean_distance_of_pairs() -> None:
    image, text = features(0, 4), features(2, 5)
    fit = fitted(image, text)
    found = aligned(fit, SHIFTS, torch.ones(ROWS), torch.arange(len(torch.ones(ROWS))), SCALE, "positive")
    assert float(found) == pytest.approx(float(1 - fit[:, 0].mean()))


@settings(deadline=None)
@given(seeds, st.integers(2, 9))
def test_with_equal_weights_and_own_captions_it_is_clips_loss(seed: int, rows: int) -> None:
    image, text = units(seed, rows, 6).float(), units(seed ^ 1, rows, 6).float()
    found = weighted_clip(image, text, torch.tensor(14.0), torch.ones(rows), torch.arange(rows))
    assert float(found) == pytest.approx(float(clip_loss(image, text, torch.tensor(14.0))), rel=1e-5)


@settings(deadline=None)
@given(seeds, st.integers(1, 4), st.integers(2, 5))
def test_rows_without_weight_have_no_influence(seed: int, out: int, rows: int) -> None:
    total = rows + out
    at = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:rows]
    weights = torch.zeros(total, dtype=torch.float64)
    weights[at] = 0.1 + torch.rand(rows, generator=torch.Generator().manual_seed(seed)).double()
    image, text = (units(seed + k, total, 6).requires_grad_() for k in (0, 1))
    found = weighted_clip(image, text, SCALE, weights, torch.arange(total))
    alone = weighted_clip(image[at], text[at], SCALE, weights[at], at)
    assert found.item() == pytest.approx(alone.item(), rel=1e-9)
    for end in torch.autograd.grad(found, (image, text)):
        assert not end[weights == 0].any() and end[at].any()


def test_rows_that_share_a_caption_are_no_negatives_of_each_other() -> None:
    image, text = units(0, 4, 6), units(1, 4, 6)
    image[1], text[1] = image[0], text[0]
    caption = torch.tensor([8, 8, 2, 3])
    both = weighted_clip(image, text, SCALE, torch.ones(4).double(), caption)
    per_row = [
        weighted_clip(image, text, SCALE, F.one_hot(torch.tensor(row), 4).double() + 1e-12, caption)
        for row in (0, 1)
    ]
    once = [0, 2, 3]
    alone = weighted_clip(image[once], text[once], SCALE, torch.tensor([1.0, 0, 0]) + 1e-12, caption[once])
    assert [float(row) for row in per_row] == pytest.approx([float(alone)] * 2, rel=1e-6)
    apart = weighted_clip(image, text, SCALE, torch.ones(4).double(), torch.arange(4))
    assert float(both) < float(apart)


def test_a_row_counts_as_much_as_its_weight() -> None:
    values, weights = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 0.0])
    assert float(weighted(values, weights)) == pytest.approx(2 / 1.5)


def test_without_any_weight_every_objective_is_zero() -> None:
    image, text, nothing = features(0, 4), features(2, 5), torch.zeros(ROWS)
    assert float(weighted_clip(image.embedding, text.embedding, SCALE, nothing, torch.arange(ROWS))) == 0
    for form in get_args(Form):
        assert (
            float(aligned(fitted(image, text), SHIFTS, nothing, torch.arange(len(nothing)), SCALE, form)) == 0
        )


@forms
def test_a_row_without_weight_is_no_anchor_of_the_ot_objectives(form: Form) -> None:
    image, text = features(0, 4), features(2, 5)
    fit = fitted(image, text)
    weights = torch.ones(ROWS, dtype=torch.float64)
    weights[2] = 0
    worse = replace(image, tokens=image.tokens.clone())
    worse.tokens[2] = -worse.tokens[2]
    column = fit.clone()
    column[2, 0] = fitted(worse, text)[2, 0]
    same = aligned(column, SHIFTS, weights, torch.arange(len(weights)), SCALE, form)
    assert float(same) == pytest.approx(
        float(aligned(fit, SHIFTS, weights, torch.arange(len(weights)), SCALE, form)), rel=1e-9
    )


def test_rows_of_weight_zero_and_rows_with_the_same_caption_are_no_negatives_on_the_ring() -> None:
    fit = torch.full((ROWS, len(SHIFTS)), 0.2, dtype=torch.float64)
    fit[0, 1] = 5.0
    liked = SHIFTS[1] % ROWS
    weights, captions = torch.ones(ROWS), torch.arange(ROWS)
    hurt = float(aligned(fit, SHIFTS, weights, captions, SCALE, "contrastive"))
    twins = captions.clone()
    twins[liked] = twins[0]
    absent = weights.clone()
    absent[liked] = 0.0
    assert float(aligned(fit, SHIFTS, weights, twins, SCALE, "contrastive")) < hurt / 2
    assert float(aligned(fit, SHIFTS, absent, captions, SCALE, "contrastive")) < hurt / 2
