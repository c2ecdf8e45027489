"""The data set inside the package: captioned clip art, built by ``tools/clipart`` (see its ATTRIBUTION.md)."""

from __future__ import annotations

import hashlib
import io
import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from poisonbench.pairs import ArrayImages, Chosen, Pairs, Rows
from poisonbench.sources import Data
from poisonbench.tasks import TargetArt, Task

FOLDER = files("poisonbench.sources.clipart")
FORMATS = ("WEBP", "PNG")
"""Of the pictures; trying all that Pillow knows doubles the time of opening them."""


@cache
def open_clipart(side: int, limit: int = 0) -> Data:
    """The embedded data at ``side`` pixels; ``limit`` keeps only the first so many training rows (0: all)."""
    table = _table("pairs.parquet")
    images = ArrayImages(_decode(table["image"], side))
    captions = [tuple(options) for options in table["captions"]]
    split = np.array(table["split"])
    fingerprint = _fingerprint()
    parts = {name: np.flatnonzero(split == name) for name in ("train", "clean", "validation")}
    if limit:
        parts["train"] = np.sort(_shuffled(parts["train"])[:limit])
    pairs = {
        name: Pairs(Chosen(images, rows), [captions[r] for r in rows], f"{fingerprint}:{name}:{limit}")
        for name, rows in parts.items()
    }
    tasks = _tasks(side)
    hypernyms = [table["hypernym"][row] for row in parts["validation"]]
    concepts = [table["concept"][row] for row in parts["validation"]]
    return Data(
        train=pairs["train"], clean=pairs["clean"], validation=pairs["validation"], tasks=tasks, targets=_targets(side),
        validation_task=_validation_task(tasks[0], pairs["validation"], hypernyms, concepts),
        synonyms=synonyms(),
        skipped=(), fingerprint=f"{fingerprint}:{side}:{limit}",
    )  # fmt: skip


def synonyms() -> dict[str, tuple[str, ...]]:
    """Word to synonyms, made from WordNet; they serve every tier's text augmentation."""
    return {word: tuple(others) for word, others in _json("synonyms.json").items()}


def _table(name: str) -> dict[str, list[Any]]:
    with FOLDER.joinpath(name).open("rb") as file:
        return pq.read_table(file).to_pydict()  # type: ignore[no-any-return]


def _json(name: str) -> Any:
    return json.loads(FOLDER.joinpath(name).read_text(encoding="utf-8"))


def _decode(pictures: list[bytes], side: int) -> Tensor:
    pixels = torch.from_numpy(
        np.stack([np.asarray(Image.open(io.BytesIO(p), formats=FORMATS).convert("RGB")) for p in pictures])
    )
    pixels = pixels.permute(0, 3, 1, 2).contiguous()
    if pixels.shape[-1] == side:
        return pixels
    resized = [
        F.interpolate(part.float(), size=side, mode="bicubic", antialias=True)
        for part in torch.split(pixels, 1024)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in resized])


def _shuffled(rows: Rows) -> Rows:
    return np.random.default_rng(0).permutation(rows)


def _tasks(side: int) -> tuple[Task, ...]:
    found = []
    for spec in _json("tasks.json"):
        table = _table(f"tasks/{spec['name']}.parquet")
        found.append(Task(
            name=spec["name"], kinds=frozenset(spec["kinds"]), classes=tuple(spec["classes"]),
            words={name: tuple(words) for name, words in spec["words"].items()}, templates=tuple(spec["templates"]),
            images=ArrayImages(_decode(table["image"], side)),
            labels=np.array(table["label"], dtype=np.int64), concepts=table["concept"],
        ))  # fmt: skip
    return tuple(found)


def _targets(side: int) -> TargetArt:
    table = _table("targets.parquet")
    return TargetArt(ArrayImages(_decode(table["image"], side)), table["concept"], table["hypernym"])


def _validation_task(headline: Task, pairs: Pairs, hypernyms: list[str], concepts: list[str]) -> Task:
    rows = np.array([row for row, name in enumerate(hypernyms) if name in headline.classes], dtype=np.int64)
    labels = np.array([headline.classes.index(hypernyms[row]) for row in rows], dtype=np.int64)
    return Task(
        name="validation_superclass", kinds=frozenset(("zero_shot",)), classes=headline.classes, words=headline.words,
        templates=headline.templates, images=Chosen(pairs.images, rows), labels=labels, concepts=[concepts[row] for row in rows],
    )  # fmt: skip


@cache
def _fingerprint() -> str:
    digest = hashlib.sha256()
    for entry in sorted((*FOLDER.iterdir(), *FOLDER.joinpath("tasks").iterdir()), key=lambda e: e.name):
        if entry.name.endswith((".parquet", ".json")):
            digest.update(entry.name.encode() + entry.read_bytes())
    return digest.hexdigest()[:16]
