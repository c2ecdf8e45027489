"""A downstream task from a folder that holds one folder of pictures per class."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poisonbench.errors import UserError
from poisonbench.pairs import Chosen, ImageStore, Rows
from poisonbench.progress import Progress
from poisonbench.randomness import stable_seed
from poisonbench.sources.evaluation_set import KINDS, EvaluationSet
from poisonbench.sources.files import files_below
from poisonbench.sources.pictures import Gallery
from poisonbench.sources.rows import listing
from poisonbench.sources.splits import OTHER_SPLIT, TRAIN_SPLIT
from poisonbench.tasks import TargetArt, Task

TEMPLATES = ("a photo of a {c}", "a picture of a {c}", "{c}")
ENDINGS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
SPARES_TARGETS = 40
"""Pictures from which on half of them can become targets."""


@dataclass(frozen=True)
class Labelled:
    """Sound pictures with their class and concept.

    Attributes:
        images: every file of the folder, by number.
        rows: the numbers of the sound ones.
        classes: per sound picture its class.
        concepts: per sound picture the name of the first with the same content; nothing else is known to be one drawing.
    """

    images: ImageStore
    rows: Rows
    classes: list[str]
    concepts: list[str]

    def chosen(self, which: Iterable[int]) -> Labelled:
        """Some of them."""
        picked = list(which)
        classes, concepts = [self.classes[i] for i in picked], [self.concepts[i] for i in picked]
        return Labelled(self.images, self.rows[picked], classes, concepts)


def open_class_folders(path: str, side: int, spare: bool, progress: Progress) -> EvaluationSet:
    """The task of the folder at ``path``; with ``spare``, a large one gives half of its concepts as targets.

    Raises:
        UserError: when there are no two classes with pictures.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"--eval folder:{path} does not exist; give a folder that holds one folder of images per class"
        )
    files = picture_files(folder)
    gallery = Gallery(lambda number: files[number].read_bytes(), len(files), side)
    found = _labelled(folder, files, gallery, progress)
    skipped = listing(
        f"{files[number].relative_to(folder).as_posix()}: the image cannot be read ({gallery.broken[number]})"
        for number in sorted(gallery.broken)
    )
    if len(set(found.classes)) < 2:
        why = f" (skipped {skipped[0]})" if skipped else ""
        raise UserError(
            f"--eval folder:{path} has no two classes; it must hold one folder of images per class{why}"
        )
    if all(TRAIN_SPLIT.fullmatch(one) or OTHER_SPLIT.fullmatch(one) for one in found.classes):
        splits = " and ".join(sorted(set(found.classes)))
        raise UserError(
            f"--eval folder:{path} holds {splits}, which are no classes; name one of those folders"
        )
    name, halve = folder.resolve().name, spare and len(found.rows) >= SPARES_TARGETS
    fingerprint = _fingerprint(found, gallery, halve)
    if not halve:
        return EvaluationSet((_task(name, found),), None, skipped, fingerprint)
    judged, held_out = _halves(found)
    targets = TargetArt(Chosen(held_out.images, held_out.rows), held_out.concepts, held_out.classes)
    return EvaluationSet((_task(name, judged),), targets, skipped, fingerprint)


def picture_files(folder: Path) -> list[Path]:
    """The pictures in the folders of a folder, sorted; hidden ones are none."""
    return [file for file in files_below(folder) if file.suffix.lower() in ENDINGS and file.parent != folder]


def _labelled(folder: Path, files: list[Path], gallery: Gallery, progress: Progress) -> Labelled:
    progress.phase(f"checking images of {folder.name}", len(files), "images")
    rows = []
    for done, number in enumerate(gallery.sound(range(len(files))), start=1):
        rows.append(number)
        progress.advance(done)
    paths = [_readable(files[number].relative_to(folder)) for number in rows]
    classes = [path.parts[0].replace("_", " ") for path in paths]
    first: dict[bytes, str] = {}
    names = [path.with_suffix("").as_posix() for path in paths]
    concepts = [
        first.setdefault(gallery.digests[number], name) for number, name in zip(rows, names, strict=True)
    ]
    return Labelled(gallery.images, np.array(rows, dtype=np.int64), classes, concepts)


def _readable(path: Path) -> Path:
    """A path whose name every file can hold: accents composed, bytes that are no UTF-8 replaced."""
    return Path(unicodedata.normalize("NFC", os.fsencode(path).decode("utf-8", "replace")))


def _halves(found: Labelled) -> tuple[Labelled, Labelled]:
    """Every other concept of each class in a fixed random order leaves, but no class is left empty."""
    stays: set[str] = set()
    leaves: set[str] = set()
    for name in sorted(set(found.classes)):
        members = {concept for concept, own in zip(found.concepts, found.classes, strict=True) if own == name}
        undecided = sorted(members - stays - leaves, key=stable_seed)
        stays.update(undecided[::2])
        leaves.update(undecided[1::2])
        if members <= leaves:  # its concepts are another class's too
            leaves -= members
            stays |= members
    first = [i for i, concept in enumerate(found.concepts) if concept in stays]
    second = [i for i, concept in enumerate(found.concepts) if concept in leaves]
    return found.chosen(first), found.chosen(second)


def _task(name: str, judged: Labelled) -> Task:
    classes = tuple(sorted(set(judged.classes)))
    return Task(
        name=name,
        kinds=KINDS,
        classes=classes,
        words={one: (one.lower(),) for one in classes},
        templates=TEMPLATES,
        images=Chosen(judged.images, judged.rows),
        labels=np.array([classes.index(one) for one in judged.classes], dtype=np.int64),
        concepts=judged.concepts,
    )


def _fingerprint(found: Labelled, gallery: Gallery, halved: bool) -> str:
    digest = hashlib.sha256(f"{gallery.side} {halved}".encode())
    for row, name, concept in zip(found.rows.tolist(), found.classes, found.concepts, strict=True):
        digest.update(gallery.digests[row] + f"{name}\n{concept}\0".encode())
    return digest.hexdigest()[:16]
