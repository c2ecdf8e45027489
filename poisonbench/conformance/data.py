"""A tiny data set drawn on the spot: coloured shapes with captions, at any resolution.

Made-up words name the things, so that no word of one class can be found in another's captions.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench.pairs import ArrayImages, ImageStore, Pairs
from poisonbench.randomness import numpy_rng
from poisonbench.sources import Data
from poisonbench.tasks import TargetArt, Task

CLASSES = ("fruit", "animal", "vehicle", "tool")
MEMBERS = ("balo", "dami", "feru", "gosi", "keto", "lupa")
SIZES = {"tiny": 0.22, "small": 0.28, "big": 0.34, "huge": 0.4}
COLOURS = {
    "red": (214, 40, 40),
    "green": (42, 157, 84),
    "blue": (40, 90, 200),
    "orange": (244, 140, 30),
    "purple": (130, 60, 170),
    "black": (30, 30, 34),
    "brown": (120, 80, 50),
    "pink": (240, 130, 170),
}
TRAINING, HELD_OUT, TASK, TARGETS = 160, 48, 48, 40
ODD = "gadget"
"""A kind of target art that is no class of the task."""


class Sketch(NamedTuple):
    """One drawing: what it shows, before it has pixels."""

    label: int
    member: int
    colour: str
    size: str
    centre: tuple[float, float]
    paper: int


def class_names(wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Four class names, those in ``wanted`` first."""
    return tuple(dict.fromkeys((*wanted, *CLASSES)))[: max(4, len(wanted))]


def tiny_data(side: int = 32, wanted: tuple[str, ...] = ()) -> Data:
    """Pairs, splits, a task and target art, made anew at every call and always the same.

    Args:
        side: pixels per image side; the same drawings at every side.
        wanted: names that must be among the task's classes (an attack's default target).
    """
    classes = class_names(wanted)
    return Data(
        train=_pairs("train", TRAINING, classes, side),
        clean=_pairs("clean", HELD_OUT, classes, side),
        validation=_pairs("validation", HELD_OUT, classes, side),
        tasks=(_task(classes, side),),
        targets=_targets(classes, side),
        validation_task=None,
        synonyms={"tiny": ("little", "minute"), "big": ("large",), "picture": ("image",)},
        skipped=(),
        fingerprint=f"conformance:{side}:{'|'.join(classes)}",
    )


def laconic(data: Data, step: int) -> Data:
    """The same data, in which every so-manieth training row has only the first of its captions."""
    captions = [options[: 1 if row % step == 0 else None] for row, options in enumerate(data.train.captions)]
    return replace(data, train=replace(data.train, captions=captions))


def digest(data: Data) -> str:
    """A hash of everything that a plugin can reach, to see whether it wrote on it."""
    assert data.targets is not None
    splits, task, targets = (data.train, data.clean, data.validation), data.headline, data.targets
    texts = [[list(pairs.captions) for pairs in splits], task.concepts, targets.concepts, targets.kinds]
    found = hashlib.sha256(repr([texts, task.classes, task.words, task.labels.tolist()]).encode())
    for store in (*(pairs.images for pairs in splits), task.images, targets.images):
        found.update(every(store).numpy().tobytes())
    return found.hexdigest()


def every(store: ImageStore) -> Tensor:
    """All images of a store, uint8 (n, 3, side, side)."""
    return store.fetch(np.arange(len(store)))


def member_words(label: int) -> tuple[str, ...]:
    """What the things of class ``label`` are called."""
    return tuple(f"{member}{label}" for member in MEMBERS)


def _pairs(part: str, count: int, classes: tuple[str, ...], side: int) -> Pairs:
    sketches = _sketches(part, count, len(classes))
    captions = [_captions(sketch, classes) for sketch in sketches]
    return Pairs(_images(sketches, side), captions, f"conformance:{part}:{side}:{'|'.join(classes)}")


def _task(classes: tuple[str, ...], side: int) -> Task:
    sketches = _sketches("task", TASK, len(classes))
    words = {name: member_words(label) for label, name in enumerate(classes)}
    return Task(
        name="shapes",
        kinds=frozenset(("zero_shot", "probe")),
        classes=classes,
        words=words,
        templates=("a picture of a {c}.",),
        images=_images(sketches, side),
        labels=np.array([sketch.label for sketch in sketches], dtype=np.int64),
        concepts=[member_words(sketch.label)[sketch.member] for sketch in sketches],
    )


def _targets(classes: tuple[str, ...], side: int) -> TargetArt:
    sketches = _sketches("targets", TARGETS, len(classes) + 1)
    return TargetArt(
        _images(sketches, side),
        concepts=[f"target {number}" for number in range(TARGETS)],
        kinds=[(*classes, ODD)[sketch.label] for sketch in sketches],
    )


def _captions(sketch: Sketch, classes: tuple[str, ...]) -> tuple[str, ...]:
    thing = member_words(sketch.label)[sketch.member]
    return f"a {sketch.size} {sketch.colour} {thing}", f"picture of a {sketch.colour} {classes[sketch.label]}"


def _sketches(part: str, count: int, classes: int) -> list[Sketch]:
    rng = numpy_rng("conformance", part)
    return [
        Sketch(
            label=row % classes,
            member=row // classes % len(MEMBERS),
            colour=str(rng.choice(list(COLOURS))),
            size=str(rng.choice(list(SIZES))),
            centre=(rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6)),
            paper=int(rng.integers(190, 250)),
        )
        for row in range(count)
    ]


def _images(sketches: list[Sketch], side: int) -> ArrayImages:
    return ArrayImages(torch.from_numpy(np.stack([_drawn(sketch, side) for sketch in sketches])))


def _drawn(sketch: Sketch, side: int) -> npt.NDArray[np.uint8]:
    grid = (np.arange(side) + 0.5) / side
    x, y = grid[None, :] - sketch.centre[0], grid[:, None] - sketch.centre[1]
    angle = sketch.label + sketch.member * np.pi / 12  # members of a class differ in how they are turned
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    power = (0.6, 1.0, 2.0, 8.0)[sketch.label % 4]  # classes differ in shape: star, diamond, disc, square
    inside = np.abs(along) ** power + np.abs(1.6 * across) ** power < SIZES[sketch.size] ** power
    image = np.where(inside, np.array(COLOURS[sketch.colour])[:, None, None], sketch.paper)
    return image.astype(np.uint8)
