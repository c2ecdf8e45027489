"""Retrieval on the validation pairs: who counts as a true partner, and at which rank the best one is found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poisonbench.evaluation import retrieval
from poisonbench.evaluation.retrieval import best_ranks, groups_of, retrieval_ranks
from poisonbench.pairs import ArrayImages, Pairs

IDS = "abcdefgh"


class Reader:
    """A stand-in for towers: the colour of a picture and the first letter of a caption are places on one axis each."""

    def tokenizer(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[IDS.index(text[0].lower())] for text in texts])

    def encode_text(self, ids: Tensor) -> Tensor:
        return torch.eye(len(IDS))[ids[:, 0]]

    def encode_image(self, images: Tensor) -> Tensor:
        return torch.eye(len(IDS))[images[:, 0, 0, 0].long()]


class Blank(Reader):
    """A model that gives everything one embedding."""

    def encode_text(self, ids: Tensor) -> Tensor:
        return F.normalize(torch.ones(len(ids), 4), dim=1)

    encode_image = encode_text


def found(towers: Reader, pictures: Sequence[int], captions: Sequence[str]) -> tuple[list[int], list[int]]:
    pixels = torch.tensor(pictures, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    pairs = Pairs(ArrayImages(pixels.contiguous()), [(caption,) for caption in captions], "")
    to_text, to_image = retrieval_ranks(towers, pairs)
    return to_text.tolist(), to_image.tolist()


def test_aligned_embeddings_find_every_partner_first() -> None:
    assert found(Reader(), range(5), "abcde") == ([1] * 5, [1] * 5)


def test_a_collapsed_model_finds_nothing() -> None:
    assert found(Blank(), range(6), "abcdef") == ([6] * 6, [6] * 6)


def test_captions_that_the_model_reads_alike_are_each_others_partners() -> None:
    assert found(Reader(), [1, 0, 2, 3], ["a cat", "b cat", "c dog", "d cow"])[0] == [4, 4, 1, 1]
    assert found(Reader(), [0, 4, 2, 3], ["a cat", "A cat", "c dog", "d cow"])[1] == [1, 1, 1, 1]


def test_all_captions_of_one_picture_are_its_partners() -> None:
    """Five captions per picture, as COCO has them: a perfect model finds one of the picture's own first."""
    one, several = found(Reader(), [0, 0, 0, 1, 1], ["a x", "c y", "d z", "b x", "e y"])
    assert one == [1] * 5
    assert several[0] == several[3] == 1
    assert found(Reader(), [0, 2, 3, 1, 4], ["a x", "c y", "d z", "b x", "e y"])[0] == [1] * 5


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 5)), min_size=1, max_size=20),
)
def test_ranks_are_what_counting_one_by_one_gives_at_any_chunk_size(
    seed: int, rows: list[tuple[str, int]]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(2, len(rows), 3, generator=generator)
    expected = []
    for row, (letter, number) in enumerate(rows):
        scores = (images[row] @ texts.T).tolist()
        true = [one == letter or other == number for one, other in rows]
        best = max(score for score, own in zip(scores, true, strict=True) if own)
        expected.append(1 + sum(s >= best for s, own in zip(scores, true, strict=True) if not own))
    groups = [groups_of(column) for column in zip(*rows, strict=True)]
    partners = [(group, group) for group in groups]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "CHUNK", 4)
        chunked = best_ranks(images, texts, *partners)
    assert best_ranks(images, texts, *partners).tolist() == expected
    assert np.array_equal(chunked, expected)
