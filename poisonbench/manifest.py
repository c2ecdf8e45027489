"""The poison manifest: one line per changed or appended row, and its deterministic application.

A manifest is everything an attack does to the training data. It is written beside the record, so that anyone can
rebuild the poisoned set without running the attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from poisonbench.pairs import ImageStore, Pairs, Rows
from poisonbench.randomness import stable_seed
from poisonbench.settings import Settings
from poisonbench.tasks import TargetArt
from poisonbench.triggers import Operation, Trigger, paint

PAINTED_TOGETHER = 512
"""Images at a time: painting takes floats, four times the memory of what is kept."""


class Picture(Settings):
    """Where a poisoned row's image comes from.

    Attributes:
        source: ``own`` keeps the row's image, ``row`` takes training row ``index``, ``target`` takes held-out art ``index``.
        index: the row of the source; unused for ``own``.
    """

    source: Literal["own", "row", "target"] = "own"
    index: int = Field(0, ge=0)


class Edit(Settings):
    """One poisoned row.

    Attributes:
        row: the training row that is changed, or None for an appended row.
        picture: the source of its image.
        operation: what is painted into the image, if anything.
        captions: the new captions, or None to keep the row's own (label-consistent poisons).
        target: the class that the attacker wants.
        group: which of several independent goals the row serves (the target image of targeted poisoning).
    """

    row: int | None = Field(None, ge=0)
    picture: Picture = Picture()
    operation: Operation | None = None
    captions: tuple[str, ...] | None = None
    target: str
    group: int = Field(0, ge=0)


class Manifest(Settings):
    """All edits of one attack on one set of pairs.

    Attributes:
        edits: the poisoned rows, changed ones before appended ones.
        target_words: per target class the words that name it, for judging whether a caption still names the target.
    """

    edits: tuple[Edit, ...] = ()
    target_words: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def changed(self) -> tuple[Edit, ...]:
        """Edits of existing rows."""
        return tuple(edit for edit in self.edits if edit.row is not None)

    @property
    def appended(self) -> tuple[Edit, ...]:
        """Edits that add a row."""
        return tuple(edit for edit in self.edits if edit.row is None)

    def rows(self, clean_rows: int) -> Rows:
        """The row in the poisoned set of every edit, aligned with ``changed`` followed by ``appended``."""
        changed = [edit.row for edit in self.edits if edit.row is not None]
        return np.array([*changed, *range(clean_rows, clean_rows + len(self.appended))], dtype=np.int64)

    def apply(self, pairs: Pairs, targets: TargetArt | None) -> Pairs:
        """The poisoned pairs: the same rows in the same order, changed where edited, appended rows last.

        Raises:
            ValueError: for an edit of a row that does not exist, or of one row twice.
        """
        self._check(len(pairs), targets)
        captions = list(pairs.captions)
        for edit in self.changed:
            assert edit.row is not None
            captions[edit.row] = edit.captions or captions[edit.row]
        captions += [edit.captions for edit in self.appended if edit.captions]
        fingerprint = f"{stable_seed(pairs.fingerprint, self.model_dump_json()):016x}"
        return Pairs(PoisonedImages(pairs.images, self, targets), captions, fingerprint)

    def _check(self, rows: int, targets: TargetArt | None) -> None:
        """Refuse edits that point at nothing."""
        changed = [edit.row for edit in self.changed]
        if len(set(changed)) != len(changed):
            raise ValueError("the manifest edits a row twice")
        if any(edit.row is not None and edit.row >= rows for edit in self.edits):
            raise ValueError("the manifest edits a row that does not exist")
        if any(edit.picture.source == "own" or not edit.captions for edit in self.appended):
            raise ValueError("an appended row needs captions and a picture of its own")
        if targets is None and any(edit.picture.source == "target" for edit in self.edits):
            raise ValueError("the manifest needs held-out target art, but the data has none")
        limits = {"own": 1, "row": rows, "target": len(targets.images) if targets else 0}
        if any(edit.picture.index >= limits[edit.picture.source] for edit in self.edits):
            raise ValueError("the manifest takes a picture that does not exist")


class PoisonedImages:
    """The clean images seen through a manifest; painted when fetched, so that no second copy is kept.

    Everything but the pictures is private: this is what a defence is given, and it must not find the manifest here.
    """

    def __init__(self, clean: ImageStore, manifest: Manifest, targets: TargetArt | None) -> None:
        order = (*manifest.changed, *manifest.appended)
        edits = dict(zip(manifest.rows(len(clean)).tolist(), order, strict=True))
        self.side, self._length = clean.side, len(clean) + len(manifest.appended)
        self._fetch = partial(_fetch, clean, edits, targets)

    def __len__(self) -> int:
        return self._length

    def fetch(self, rows: Rows) -> Tensor:
        """The images of ``rows``, uint8 (len(rows), 3, side, side)."""
        return self._fetch(rows)


def _fetch(clean: ImageStore, edits: dict[int, Edit], targets: TargetArt | None, rows: Rows) -> Tensor:
    own = np.where(rows < len(clean), rows, 0)
    images = clean.fetch(own).clone()
    for at, row in enumerate(np.asarray(rows).tolist()):
        if edit := edits.get(row):
            images[at] = _edited(clean, edit, targets, images[at])
    return images


def _edited(clean: ImageStore, edit: Edit, targets: TargetArt | None, own: Tensor) -> Tensor:
    image = own
    if edit.picture.source == "row":
        image = clean.fetch(np.array([edit.picture.index]))[0]
    elif edit.picture.source == "target" and targets is not None:
        image = targets.images.fetch(np.array([edit.picture.index]))[0]
    return paint(image, edit.operation) if edit.operation else image


def painted(images: Tensor, operations: Sequence[Trigger]) -> Tensor:
    """A batch of images (uint8, (n, 3, side, side)), each with its own operation applied; equal ones are applied together."""
    places: dict[Trigger, list[int]] = {}
    for at, (_, operation) in enumerate(zip(images, operations, strict=True)):
        places.setdefault(operation, []).append(at)
    found = torch.empty_like(images)
    for operation, rows in places.items():
        for part in torch.split(torch.tensor(rows), PAINTED_TOGETHER):
            found[part] = paint(images[part], operation)
    return found
