from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.evaluation import retrieval
from poisonbench.evaluation.retrieval import retrieval_ranks


def test_aligned_embeddings_find_every_partner_first() -> None:
    vectors = torch.eye(5)
    to_text, to_image = retrieval_ranks(vectors, vectors, list("abcde"))
    assert to_text.tolist() == to_image.tolist() == [1] * 5


def test_a_collapsed_model_finds_nothing() -> None:
    same = F.normalize(torch.ones(6, 4), dim=1)
    to_text, to_image = retrieval_ranks(same, same, list("abcdef"))
    assert to_text.tolist() == to_image.tolist() == [6] * 6


def test_any_row_with_the_same_caption_is_a_true_partner() -> None:
    vectors = torch.eye(4)
    swapped = vectors[[1, 0, 2, 3]]
    assert retrieval_ranks(swapped, vectors, ["a cat", "a cat", "a dog", "a cow"])[0].tolist() == [1, 1, 1, 1]
    assert retrieval_ranks(swapped, vectors, ["a cat", "a rat", "a dog", "a cow"])[0].tolist() == [4, 4, 1, 1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20))
def test_ranks_are_what_counting_one_by_one_gives_at_any_chunk_size(seed: int, captions: list[str]) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(2, len(captions), 3, generator=generator)
    expected = []
    for row, caption in enumerate(captions):
        scores = (images[row] @ texts.T).tolist()
        best = max(score for score, other in zip(scores, captions, strict=True) if other == caption)
        expected.append(
            1 + sum(s >= best for s, other in zip(scores, captions, strict=True) if other != caption)
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CHUNK", 4)
        chunked = retrieval_ranks(images, texts, captions)
    whole = retrieval_ranks(images, texts, captions)
    assert whole[0].tolist() == expected
    assert all(np.array_equal(a, b) for a, b in zip(chunked, whole, strict=True))
