"""CleanCLIP: CLIP's loss on clean pairs, plus each input looking for its own augmented copy."""

from __future__ import annotations

import copy

import pytest
import torch
from repairing import LAB, SHORT, fine_tuned, first_batch, only, repaired_weights, undefended
from torch import Tensor

from poisonbench.defenses.cleanclip import CleanCLIP
from poisonbench.errors import UserError
from poisonbench.losses import clip_loss, rows_cross_entropy
from poisonbench.tier import load_tier
from poisonbench.towers import Towers


def loss(**config: object) -> Tensor:
    """Of the first batch, with the undefended model in eval mode."""
    candidate = only(CleanCLIP({**SHORT, **config}))
    with torch.no_grad():
        return candidate.objective.loss(first_batch(candidate), undefended().eval())


def test_without_the_unimodal_terms_it_is_fine_tuning_bit_for_bit() -> None:
    assert torch.equal(fine_tuned(), repaired_weights(only(CleanCLIP({**SHORT, "lambda2": 0.0}))))
    assert not torch.equal(fine_tuned(), repaired_weights(only(CleanCLIP(SHORT))))


def test_the_loss_is_clip_s_plus_half_of_each_modality_s_own() -> None:
    candidate, towers = only(CleanCLIP(SHORT)), undefended().eval()
    batch, loader = first_batch(candidate), LAB.loader(LAB.clean)
    images = loader.images(batch.rows.numpy(), "auto", (1, "augmented", 0))
    tokens = loader.tokens(batch.rows.numpy(), "eda", 1)
    with torch.no_grad():
        image, text = towers.image(batch.images[0]).embedding, towers.text(batch.tokens[0]).embedding
        image_, text_ = towers.image(images).embedding, towers.text(tokens).embedding
        within = rows_cross_entropy(towers.scale * image @ image_.T)
        within = within + rows_cross_entropy(towers.scale * text @ text_.T)
        expected = clip_loss(image, text, towers.scale) + within / 2
    torch.testing.assert_close(loss(), expected)


def test_the_terms_weigh_what_the_lambdas_say() -> None:
    plain, unimodal = loss(lambda2=0.0), loss(lambda1=0.0)
    torch.testing.assert_close(loss(lambda1=2.0, lambda2=3.0), 2 * plain + 3 * unimodal)
    assert plain > 0 and unimodal > 0


def test_originals_and_copies_pass_the_towers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalisation over the batch sees both, as in the released code."""
    candidate, towers = only(CleanCLIP(SHORT)), copy.deepcopy(undefended())
    sizes, image = [], towers.image
    monkeypatch.setattr(towers, "image", lambda images: sizes.append(len(images)) or image(images))
    candidate.objective.loss(first_batch(candidate), towers)
    assert sizes == [2 * candidate.recipe.batch]


def test_every_candidate_meets_the_same_copies() -> None:
    first, second = CleanCLIP({**SHORT, "lrs": (0.1, 1.0)}).repair(LAB).values()
    towers = undefended().eval()
    with torch.no_grad():
        losses = [one.objective.loss(first_batch(one), towers) for one in (first, second)]
    assert torch.equal(*losses)


def test_a_copy_s_caption_is_the_one_that_the_row_has_in_this_epoch() -> None:
    """A row has several captions; the copy changes a word or two of the one in use and does not take another."""
    assert loss(lambda1=0.0, images="none", texts="none") == pytest.approx(own_caption_loss(), abs=1e-5)


def own_caption_loss() -> float:
    """The unimodal terms where the second view is the first."""
    batch, towers = first_batch(only(CleanCLIP(SHORT))), undefended().eval()
    plain = LAB.clean.images.fetch(batch.rows.numpy())
    with torch.no_grad():
        image, text = towers.image(batch.images[0]).embedding, towers.text(batch.tokens[0]).embedding
        image_ = towers.image(plain).embedding
        within = rows_cross_entropy(towers.scale * image @ image_.T)
        return float(within + rows_cross_entropy(towers.scale * text @ text.T)) / 2


def test_the_default_run_costs_at_most_a_quarter_of_an_undefended_cell_of_the_clipart_tier() -> None:
    tier = load_tier("clipart").recipe
    recipes = CleanCLIP().config.recipes(tier).values()
    assert all(2 * one.epochs * 1572 <= 0.25 * tier.epochs * 13175 for one in recipes), "two views"


def test_negative_weights_and_unknown_policies_are_refused() -> None:
    for config in ({"lambda1": -1}, {"lambda2": -0.1}, {"images": "autumn"}, {"lamda2": 1}):
        with pytest.raises(UserError, match=r"lambda|images"):
            CleanCLIP(config)


def test_both_towers_learn_from_the_unimodal_terms_alone() -> None:
    candidate = only(CleanCLIP({**SHORT, "lambda1": 0.0}))
    towers: Towers = copy.deepcopy(undefended()).train()
    candidate.objective.loss(first_batch(candidate), towers).backward()
    for tower in (towers.model.visual, towers.model.text):
        assert any(p.grad is not None and bool(p.grad.any()) for p in tower.parameters())
