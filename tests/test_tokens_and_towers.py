"""Token ids, and towers whose global features are open_clip's own while their tokens live in the same space."""

from __future__ import annotations

from collections.abc import Iterator

import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.errors import UserError
from poisonbench.tokens import BUCKETS, Tokenizer
from poisonbench.towers import (
    MAX_SCALE,
    Features,
    Towers,
    attention_pool_tokens,
    build_towers,
    image_side,
    image_tokens,
    text_tokens,
)

TEXTS = ["a red apple", "picture of a big dog", "a"]
CONTEXT = 10
TOKENIZER = Tokenizer.trimmed_to(TEXTS, CONTEXT)
FULL = Tokenizer(CONTEXT)
OURS = ("poisonbench-s", "poisonbench-xs")
captions = st.text(max_size=60)


@settings(deadline=None)
@given(captions)
def test_any_text_starts_once_and_ends_with_the_largest_id(text: str) -> None:
    for tokenizer in (TOKENIZER, FULL):
        [ids] = tokenizer(text)
        start, last = tokenizer.end - 1, int(ids.argmax())
        assert ids.dtype == torch.int64 and ids.shape == (CONTEXT,)
        assert ids[last] == tokenizer.end == tokenizer.size - 1
        assert ids[0] == start and (ids == start).sum() == 1
        assert (ids >= 0).all() and (ids[last + 1 :] == 0).all()


def test_a_long_text_is_cut_and_keeps_its_end() -> None:
    [ids] = TOKENIZER("a red apple and a big dog " * 5)
    assert ids[-1] == TOKENIZER.end
    assert torch.equal(ids[:4], TOKENIZER("a red apple")[0, :4])


def test_words_of_the_vocabulary_have_an_entry_of_their_own() -> None:
    known = {int(i) for text in TEXTS for i in TOKENIZER(text)[0] if 0 < i < TOKENIZER.end - 1}
    assert len(known) == len({word for text in TEXTS for word in text.split()})
    assert min(known) > BUCKETS
    assert TOKENIZER.size == 1 + BUCKETS + len(known) + 2


def test_words_that_were_not_seen_share_the_buckets() -> None:
    [ids] = TOKENIZER("zebra helicopter")
    inner = ids[1 : int(ids.argmax())]
    assert len(inner) > 0 and ((inner >= 1) & (inner <= BUCKETS)).all()


def test_trimming_keeps_the_order_of_ids() -> None:
    words = sorted({word for text in TEXTS for word in text.split()})
    theirs, ours = (tokenizer(words)[:, 1] for tokenizer in (FULL, TOKENIZER))
    assert torch.equal(theirs.argsort(), ours.argsort())


def test_the_full_table_is_open_clips() -> None:
    assert torch.equal(FULL(TEXTS), open_clip.tokenizer.tokenize(TEXTS, context_length=CONTEXT))


@pytest.fixture(scope="module", params=["poisonbench-s", "RN50", "ViT-B-32"])
def towers(request: pytest.FixtureRequest) -> Iterator[Towers]:
    with torch.inference_mode():
        yield build_towers(request.param, TOKENIZER, seed=0, device="cpu", bf16=False).eval()


@pytest.fixture(scope="module")
def images(towers: Towers) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, towers.side, towers.side), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def seen(towers: Towers, images: Tensor) -> Features:
    return towers.image(images)


def normalised(images: Tensor, towers: Towers) -> Tensor:
    """Pixels as open_clip's own preprocessing gives them."""
    preprocess = open_clip.transform.PreprocessCfg(**towers.model.visual.preprocess_cfg)
    mean, std = (torch.tensor(stat).view(3, 1, 1) for stat in (preprocess.mean, preprocess.std))
    return (images.float() / 255 - mean) / std


def test_image_embeddings_are_open_clips(towers: Towers, images: Tensor, seen: Features) -> None:
    stock = towers.model.encode_image(normalised(images, towers), normalize=True)
    torch.testing.assert_close(seen.embedding, stock, rtol=0, atol=1e-5)


def test_text_embeddings_are_open_clips(towers: Towers) -> None:
    ids = TOKENIZER([*TEXTS, "something never seen"])
    stock = towers.model.encode_text(ids, normalize=True)
    torch.testing.assert_close(towers.text(ids).embedding, stock, rtol=0, atol=1e-5)


def test_features_are_unit_vectors_of_one_space(towers: Towers, seen: Features) -> None:
    image, text = seen, towers.text(TOKENIZER(TEXTS))
    width = image.embedding.shape[-1]
    for vectors in (image.embedding, image.tokens, text.embedding, text.tokens):
        assert vectors.shape[-1] == width and vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))


def test_image_tokens_are_all_real_and_at_least_sixteen(seen: Features) -> None:
    assert seen.tokens.shape[1] >= 16
    assert seen.mask.shape == seen.tokens.shape[:2] and seen.mask.all()


def test_text_tokens_are_the_words_and_the_end(towers: Towers) -> None:
    features = towers.text(TOKENIZER(TEXTS))
    assert features.mask.sum(dim=1).tolist() == [len(text.split()) + 1 for text in TEXTS]
    assert (features.mask[:, :-1] >= features.mask[:, 1:]).all(), "padding comes after the words"
    ends = features.tokens[torch.arange(len(TEXTS)), features.mask.sum(dim=1) - 1]
    torch.testing.assert_close(ends, features.embedding)


def test_whole_bytes_and_shares_of_one_are_the_same_image() -> None:
    small = build_towers("poisonbench-xs", TOKENIZER, seed=0, device="cpu", bf16=False).eval()
    images = torch.arange(2 * 3 * 32 * 32).remainder(256).byte().view(2, 3, 32, 32)
    torch.testing.assert_close(small.image(images / 255).embedding, small.image(images).embedding)


@pytest.mark.parametrize("name", OURS)
def test_our_small_models_give_sixteen_tokens_at_32_pixels_whose_mean_is_the_embedding(name: str) -> None:
    small = build_towers(name, TOKENIZER, seed=0, device="cpu", bf16=False).eval()
    pooled, local = image_tokens(small.model.visual, torch.rand(2, 3, 32, 32))
    assert image_side(name) == small.side == 32 and local.shape[1] == 16
    torch.testing.assert_close(pooled, local.mean(dim=1))


def test_the_first_place_of_the_attention_pool_is_the_stock_output() -> None:
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        pool = open_clip.modified_resnet.AttentionPool2d(7, 64, 4, 32)
        grid = torch.randn(2, 64, 7, 7)
        every = attention_pool_tokens(pool, grid)
        assert every.shape == (2, 1 + 49, 32)
        torch.testing.assert_close(every[:, 0], pool(grid), rtol=0, atol=1e-6)


def test_a_words_token_does_not_change_with_the_words_after_it() -> None:
    small = build_towers("poisonbench-xs", TOKENIZER, seed=0, device="cpu", bf16=False).eval()
    short, long = (text_tokens(small.model.text, TOKENIZER([text]))[1] for text in ("a red", "a red apple"))
    torch.testing.assert_close(short[:, :3], long[:, :3])
    assert not torch.allclose(F.normalize(short[:, 3]), F.normalize(long[:, 3]))


def test_the_seed_alone_decides_the_weights_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (
        build_towers("poisonbench-xs", TOKENIZER, seed=seed, device="cpu", bf16=False) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    late = build_towers("poisonbench-xs", TOKENIZER, seed=1, device="cpu", bf16=False)
    for same in (again, late):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_bf16_features_are_full_precision_unit_vectors_near_the_exact_ones() -> None:
    exact, rough = (
        build_towers("poisonbench-xs", TOKENIZER, seed=0, device="cpu", bf16=bf16).eval()
        for bf16 in (False, True)
    )
    ids = TOKENIZER(TEXTS)
    assert rough.text(ids).embedding.dtype == torch.float32
    assert (rough.text(ids).embedding * exact.text(ids).embedding).sum(dim=-1).min() > 0.99


def test_the_scale_never_exceeds_a_hundred() -> None:
    small = build_towers("poisonbench-xs", TOKENIZER, seed=0, device="cpu", bf16=False)
    with torch.no_grad():
        small.model.logit_scale.fill_(20.0)
    assert float(small.scale) == MAX_SCALE


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no model 'ViT-B-23'; did you mean .*'ViT-B-32'"):
        build_towers("ViT-B-23", TOKENIZER, seed=0, device="cpu", bf16=False)
    with pytest.raises(UserError, match=r"field 'model\.name'.*did you mean 'poisonbench-s'"):
        image_side("poisonbench-ss")


@pytest.mark.parametrize("rows", [torch.tensor([2, 0]), torch.tensor([True, False, True]), slice(1, None)])
def test_features_of_some_rows_keep_embedding_tokens_and_mask_together(rows: torch.Tensor | slice) -> None:
    features = Features(
        torch.randn(3, 4), torch.randn(3, 2, 4), torch.tensor([[True, True], [True, False], [True, True]])
    )
    some = features[rows]
    for name in ("embedding", "tokens", "mask"):
        assert torch.equal(getattr(some, name), getattr(features, name)[rows])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("swin_base_patch4_window7_224", "gives no map of places"),
        ("coca_ViT-B-32", "does not pool at the end token"),
    ],
)
def test_a_model_whose_tokens_cannot_be_reached_is_refused_and_not_computed_otherwise(
    name: str, reason: str
) -> None:
    towers = build_towers(name, TOKENIZER, seed=0, device="cpu", bf16=False).eval()
    with pytest.raises(UserError, match=reason), torch.no_grad():
        towers.text(TOKENIZER(["a cat"]))
        towers.image(torch.zeros(1, 3, towers.side, towers.side, dtype=torch.uint8))


def test_a_trunk_that_projects_its_features_gives_tokens_in_the_joint_space() -> None:
    towers = build_towers("MobileCLIP-S1", TOKENIZER, seed=0, device="cpu", bf16=False).eval()
    with torch.no_grad():
        seen = towers.image(torch.zeros(1, 3, towers.side, towers.side, dtype=torch.uint8))
    assert seen.tokens.shape[-1] == seen.embedding.shape[-1]
