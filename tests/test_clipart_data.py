"""Holds the shipped clip-art data to what the benchmark relies on."""

import io
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

DATA = Path(__file__).parents[1] / "poisonbench" / "sources" / "clipart"
LICENSES = re.compile(r"PD|CC0-1\.0|MIT|BSD-[23]-Clause|ISC|Apache-2\.0|CC-BY(-SA)?-[34]\.0")
SUPERCLASS_WORD_PRECISION = 0.7
TASKS = json.loads((DATA / "tasks.json").read_text())
TABLES = ["pairs", "targets", *(f"tasks/{task['name']}" for task in TASKS)]


@cache
def table(name: str) -> dict[str, list]:
    return pq.read_table(DATA / f"{name}.parquet").to_pydict()


@cache
def pixels(name: str) -> np.ndarray:
    pictures = [Image.open(io.BytesIO(data)) for data in table(name)["image"]]
    assert {(picture.size, picture.mode) for picture in pictures} == {((32, 32), "RGB")}
    return np.stack([np.asarray(picture) for picture in pictures])


def fingerprints(pictures: np.ndarray) -> np.ndarray:
    halves = pictures.astype(np.float64)
    small = (halves[:, ::2, ::2] + halves[:, 1::2, ::2] + halves[:, ::2, 1::2] + halves[:, 1::2, 1::2]) / 4
    flat = (small - halves[:, :1, :1]).reshape(len(small), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def task_named(name: str) -> dict:
    return next(task for task in TASKS if task["name"] == name)


@pytest.mark.parametrize("name", TABLES)
def test_images_are_small_rgb_pictures_with_content(name: str) -> None:
    assert pixels(name).reshape(len(pixels(name)), -1).std(axis=1).min() > 0


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_an_allowed_licence_and_a_credited_source(name: str) -> None:
    credits = (DATA / "ATTRIBUTION.md").read_text()
    assert all(LICENSES.fullmatch(licence) for licence in set(table(name)["license"]))
    assert all(f"`{source}`" in credits for source in set(table(name)["source"]))


@pytest.mark.parametrize("name", TABLES)
def test_every_row_names_its_concept(name: str) -> None:
    assert all(concept.strip() for concept in table(name)["concept"])


def test_captions_are_one_to_six_distinct_lower_case_texts() -> None:
    for captions in table("pairs")["captions"]:
        assert 1 <= len(captions) <= 6
        assert len(set(captions)) == len(captions)
        assert all(caption == caption.lower().strip() and len(caption) > 2 for caption in captions)


def test_canonical_captions_name_the_superclass() -> None:
    rows = zip(table("pairs")["captions"], table("pairs")["hypernym"], strict=True)
    assert all(hypernym in captions[0] for captions, hypernym in rows)


def test_splits_have_the_promised_sizes() -> None:
    splits = table("pairs")["split"]
    assert set(splits) == {"train", "clean", "validation"}
    assert splits.count("train") >= 12_000
    assert 0.07 < splits.count("clean") / len(splits) < 0.13
    assert 0.04 < splits.count("validation") / len(splits) < 0.08


def test_a_concept_lives_in_one_split() -> None:
    homes: dict[str, set[str]] = {}
    for concept, split in zip(table("pairs")["concept"], table("pairs")["split"], strict=True):
        homes.setdefault(concept, set()).add(split)
    assert all(len(home) == 1 for home in homes.values())


def test_no_picture_occurs_in_two_splits() -> None:
    homes: dict[bytes, set[str]] = {}
    for picture, split in zip(pixels("pairs"), table("pairs")["split"], strict=True):
        homes.setdefault(picture.tobytes(), set()).add(split)
    assert all(len(home) == 1 for home in homes.values())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["name"])
def test_a_task_is_complete(task: dict) -> None:
    assert set(task) == {"name", "kinds", "classes", "words", "templates", "note"}
    assert set(task["kinds"]) <= {"zero_shot", "probe"} and task["kinds"]
    assert all("{c}" in template for template in task["templates"])
    assert len(set(task["classes"])) == len(task["classes"])
    assert set(task["words"]) == set(task["classes"])
    assert set(table(f"tasks/{task['name']}")["label"]) == set(range(len(task["classes"])))


def test_the_headline_task_has_all_superclasses_with_enough_pictures() -> None:
    labels = table("tasks/fluent_superclass")["label"]
    assert len(task_named("fluent_superclass")["classes"]) == 23
    assert np.bincount(labels).min() >= 12


def test_superclasses_of_the_headline_task_are_superclasses_of_training_rows() -> None:
    assert set(task_named("fluent_superclass")["classes"]) <= set(table("pairs")["hypernym"])


def test_the_words_of_a_superclass_mark_its_captions() -> None:
    rows = zip(table("pairs")["captions"], table("pairs")["hypernym"], table("pairs")["split"], strict=True)
    train = [(" | ".join(captions), hypernym) for captions, hypernym, split in rows if split == "train"]
    for name, words in task_named("fluent_superclass")["words"].items():
        assert words[0] == name
        for word in words:
            whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
            hits = [hypernym == name for text, hypernym in train if word in text and whole.search(text)]
            assert np.mean(hits) >= SUPERCLASS_WORD_PRECISION - 0.05, (name, word)


def test_a_word_belongs_to_one_superclass() -> None:
    words = [word for words in task_named("fluent_superclass")["words"].values() for word in words]
    assert len(set(words)) == len(words)


def test_no_task_scores_a_target() -> None:
    targets = set(table("targets")["concept"])
    for task in TASKS:
        assert not targets & set(table(f"tasks/{task['name']}")["concept"]), task["name"]


def test_a_target_has_controls_of_its_own_superclass() -> None:
    concepts: dict[str, set[str]] = {}
    for concept, hypernym in zip(table("targets")["concept"], table("targets")["hypernym"], strict=True):
        concepts.setdefault(hypernym, set()).add(concept)
    assert min(map(len, concepts.values())) >= 4
    assert 200 <= sum(map(len, concepts.values())) <= 300


def test_targets_come_flat_and_shaded_under_one_concept() -> None:
    twins: dict[str, set[str]] = {}
    for concept, twin in zip(table("targets")["concept"], table("targets")["twin"], strict=True):
        assert twin in {"flat", "shaded"}
        twins.setdefault(concept, set()).add(twin)
    assert np.mean([len(kinds) == 2 for kinds in twins.values()]) > 0.9


def test_twins_of_the_headline_task_share_concept_and_class() -> None:
    data = table("tasks/fluent_superclass")
    seen: dict[str, set[tuple[str, int]]] = {}
    for concept, source, label in zip(data["concept"], data["source"], data["label"], strict=True):
        seen.setdefault(concept, set()).add((source, label))
    assert all(len({label for _, label in rows}) == 1 for rows in seen.values())
    assert np.mean([len({source for source, _ in rows}) == 2 for rows in seen.values()]) > 0.9


@pytest.mark.parametrize("name", TABLES[1:])
def test_evaluation_art_does_not_repeat_training_art(name: str) -> None:
    known = fingerprints(pixels("pairs")).astype(np.float32)
    assert (fingerprints(pixels(name)).astype(np.float32) @ known.T).max() <= 0.95 + 1e-4


def test_synonyms_are_words_and_short_phrases() -> None:
    synonyms = json.loads((DATA / "synonyms.json").read_text())
    captions = "\n".join(caption for captions in table("pairs")["captions"] for caption in captions)
    known = set(re.findall(r"[a-z]+", captions))
    assert len(synonyms) > 1000
    for word, others in synonyms.items():
        assert set(word.split()) <= known
        assert (
            others
            and word not in others
            and all(re.fullmatch(r"[a-z]+( [a-z]+)?", other) for other in others)
        )


def test_the_folder_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 40_000_000


def test_licence_texts_are_shipped() -> None:
    assert "Apache License" in (DATA / "LICENSE-Apache-2.0.txt").read_text()
    assert "Princeton University" in (DATA / "LICENSE-WordNet.txt").read_text()
