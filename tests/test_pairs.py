"""Pairs: which rows name a thing, and images fetched by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisonbench.pairs import ArrayImages, Chosen, Pairs, word_pattern

words = st.text("abAB'-", min_size=1, max_size=3)
texts = st.lists(words, min_size=1, max_size=4).map(" ".join)


def pairs_of(*captions: str | tuple[str, ...]) -> Pairs:
    options = [(one,) if isinstance(one, str) else one for one in captions]
    return Pairs(ArrayImages(torch.zeros(len(options), 3, 2, 2, dtype=torch.uint8)), options, "test")


@pytest.mark.parametrize(
    ("word", "caption", "named"),
    [
        ("ant", "an ant on a leaf", True),
        ("ant", "a plant", False),
        ("ant", "two ants", False),
        ("ant", "an Ant.", True),
        ("ANT", "(ant)", True),
        ("ant", "ant-hill", True),
        ("ant", "the ant's nest", True),
        ("ant", "ant_1", False),
        ("ant's", "the ant's nest", True),
        ("jack-o'-lantern", "a Jack-o'-Lantern!", True),
        ("jack-o'-lantern", "a lantern", False),
        ("ice cream", "an ice cream cone", True),
        ("ice cream", "ice and cream", False),
        ("c++", "written in c++ today", True),
        ("a.c", "abc", False),
        ("élan", "avec Élan", True),
    ],
)
def test_a_row_names_a_word_when_it_stands_alone_in_a_caption(word: str, caption: str, named: bool) -> None:
    assert pairs_of(caption).rows_naming([word]).tolist() == ([0] if named else [])


def test_any_alternative_caption_names_the_row() -> None:
    pairs = pairs_of(("a beetle", "an ant"), "a plant", ("ANT", "bee"))
    assert pairs.rows_naming(["ant"]).tolist() == [0, 2]
    assert pairs.rows_naming(["ant", "plant"]).tolist() == [0, 1, 2]
    assert pairs.captions_naming(["ant"]) == ["an ant", "ANT"]


def test_words_do_not_reach_from_one_alternative_into_the_next() -> None:
    assert pairs_of(("some ice", "cream here")).rows_naming(["ice cream"]).tolist() == []


def test_captions_are_listed_once_in_row_order() -> None:
    assert pairs_of("red ant", "bee", "blue ant", "red ant").captions_naming(["ant"]) == [
        "red ant",
        "blue ant",
    ]


def test_no_words_name_nothing() -> None:
    pairs = pairs_of("an ant", "")
    assert pairs.rows_naming([]).tolist() == []
    assert pairs.rows_without([]).tolist() == [0, 1]
    assert word_pattern([]).search("") is None


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=8), st.lists(words, max_size=3))
def test_every_row_either_names_the_words_or_is_without_them(captions: list[str], wanted: list[str]) -> None:
    pairs = pairs_of(*captions)
    naming, without = pairs.rows_naming(wanted).tolist(), pairs.rows_without(wanted).tolist()
    assert sorted(naming + without) == list(range(len(captions)))
    assert naming == sorted(naming) and without == sorted(without)


def test_images_and_captions_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 images but 1 captions"):
        Pairs(ArrayImages(torch.zeros(2, 3, 2, 2, dtype=torch.uint8)), [("one",)], "test")


def test_chosen_rows_are_counted_anew_in_the_given_order() -> None:
    store = ArrayImages(torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2))
    chosen = Chosen(Chosen(store, np.array([4, 0, 3])), np.array([2, 0]))
    assert (len(chosen), chosen.side) == (2, 2)
    assert chosen.fetch(np.array([1, 0, 1]))[:, 0, 0, 0].tolist() == [4, 3, 4]


@pytest.mark.parametrize(
    ("word", "caption"),
    [
        ("猫", "一只猫在睡觉"),
        ("แมว", "รูปแมวดำ"),
        ("고양이", "고양이가 잔다"),
        ("cafe\u0301", "Un Caf\u00e9 noir"),
        ("caf\u00e9", "UN CAFE\u0301"),
    ],
)
def test_words_are_found_in_any_script_and_spelling(word: str, caption: str) -> None:
    assert pairs_of(caption, "nothing").rows_naming([word]).tolist() == [0]
    assert pairs_of(caption).captions_naming([word]) == [caption]
