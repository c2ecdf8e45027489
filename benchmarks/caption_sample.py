"""Clean images and a pool of other pictures' captions, embedded by a trained model, and which captions are right for whom."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from ot_tokens import opened, read_by, seen_by, tier_of
from torch import Tensor

from poisonbench.errors import UserError
from poisonbench.manifest import Manifest
from poisonbench.pairs import Pairs, Rows, word_pattern
from poisonbench.randomness import numpy_rng
from poisonbench.settings import validated
from poisonbench.towers import Features

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class Sample:
    """q images and p captions, none of them of the same picture.

    Attributes:
        images: features of the images, plain views.
        captions: features of the captions.
        own: (q, d) embeddings of the captions that the images came with.
        right: per notion of rightness a bool (q, p): whose caption would be right for which image.
    """

    images: Features
    captions: Features
    own: Tensor
    right: dict[str, Tensor]


def drawn(
    checkpoint: Path, split: Split, images: int, pool: int, device: str, *, every_image: bool = False
) -> Sample:
    """Images of ``split`` whose captions name a class of the headline task, and captions of clean training rows.

    A caption is right by ``class`` if its row's captions name a class that the image's own name (what the records call
    ``recaptioned_true_class``), by ``kind`` if both rows are of one kind, where the data know kinds.

    Args:
        checkpoint: the ``model.safetensors`` of a finished cell, beside its record and its manifest.
        split: whether the images were trained on.
        images: how many, at most.
        pool: captions, one of a row's at random.
        device: where the model runs and the features stay.
        every_image: take images whose captions name no class too, and judge by kind alone.

    Raises:
        UserError: for a checkpoint that cannot be read, too few rows for the pool, or kinds that the data do not know.
    """
    data, towers = opened(checkpoint, device)
    kinds, classes = _kinds(checkpoint), word_pattern(data.headline.classes)
    if every_image and not kinds:
        raise UserError(f"--all: the data of {checkpoint.parent.name} know no kinds; leave it out")
    clean = np.setdiff1d(np.arange(len(data.train)), manifest_of(checkpoint).rows(len(data.train)))
    shown, rng = data.train if split == "train" else data.validation, numpy_rng("caption choice", split)
    usable = clean if split == "train" else np.arange(len(shown))
    usable = np.array([row for row in usable if every_image or _named(shown, row, classes)], dtype=np.int64)
    rows = np.sort(rng.permutation(usable)[:images])
    others = rng.permutation(_other_pictures(data.train, clean, rows) if split == "train" else clean)[:pool]
    if len(others) < pool:
        raise UserError(
            f"--pool {pool}: only {len(others)} clean rows show other pictures; take fewer captions or images"
        )
    texts = [str(rng.choice(data.train.captions[row])) for row in others]
    right: dict[str, Tensor] = {}
    if not every_image:
        sides = [
            [_named(pairs, row, classes) for row in some]
            for pairs, some in ((shown, rows), (data.train, others))
        ]
        right["class"] = _shared(*sides)
    if kinds:
        right["kind"] = torch.from_numpy(kinds[split][rows][:, None] == kinds["train"][others])
    own = read_by(towers, [shown.captions[row][0] for row in rows]).embedding
    return Sample(seen_by(towers, shown, rows), read_by(towers, texts), own, right)


def manifest_of(checkpoint: Path) -> Manifest:
    """What the attack did to the data of a finished cell.

    Raises:
        UserError: when the manifest is missing or is none.
    """
    path = checkpoint.with_name("manifest.json")
    if not path.is_file():
        raise UserError(
            f"{path}: the cell's manifest is missing, which says what rows are clean; run its cell again"
        )
    return validated(Manifest, json.loads(path.read_text(encoding="utf-8")), str(path))


def _other_pictures(pairs: Pairs, clean: Rows, rows: Rows) -> Rows:
    """The clean rows whose picture is in none of ``rows``."""
    from poisonbench.defenses.otcclip.copies import pictures

    picture = pictures(pairs.images).numpy()
    return clean[~np.isin(picture[clean], picture[rows])]


def _named(pairs: Pairs, row: int, classes: re.Pattern[str]) -> frozenset[str]:
    """The classes that a row's captions name."""
    return frozenset(classes.findall("\n".join(pairs.captions[row]).lower()))


def _shared(own: Sequence[frozenset[str]], others: Sequence[frozenset[str]]) -> Tensor:
    """Which of ``others`` share a name with which of ``own``: bool (q, p)."""
    names = sorted(frozenset().union(*own))
    left, right = (torch.tensor([[n in found for n in names] for found in side]) for side in (own, others))
    return left.float() @ right.float().T > 0


def _kinds(checkpoint: Path) -> dict[Split, np.ndarray[tuple[int], np.dtype[np.str_]]]:
    """What the embedded data call the kind of every row; nothing for other data, or where rows were left out."""
    import pyarrow.parquet as pq

    from poisonbench.sources.embedded import FOLDER

    declared = tier_of(checkpoint).data
    if declared.source != "clipart" or declared.limit:
        return {}
    with FOLDER.joinpath("pairs.parquet").open("rb") as file:
        table = pq.read_table(file, columns=["hypernym", "split"]).to_pydict()
    kind, split = np.array(table["hypernym"], dtype=np.str_), np.array(table["split"])
    return {"train": kind[split == "train"], "validation": kind[split == "validation"]}
