"""Downstream tasks by their clip-benchmark name, with its class names and templates."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poisonbench.errors import UserError
from poisonbench.pairs import ArrayImages, ImageStore
from poisonbench.progress import Progress
from poisonbench.sources.evaluation_set import KINDS, EvaluationSet
from poisonbench.sources.pictures import LazyImages, fits_in_memory, squared
from poisonbench.tasks import Task


def open_benchmark_set(name: str, side: int, progress: Progress) -> EvaluationSet:
    """The test split of ``name``, downloaded into ``folder_of(name)`` unless it is there already.

    Raises:
        UserError: when it cannot be had, or is no classification of images.
    """
    found = _built(name, side)
    try:
        images, labels, digest = _read(found, side, name, progress)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        raise UserError(
            f"--eval clip-benchmark:{name} is no list of images with one class each; choose another set"
        ) from None
    classes = tuple(found.classes)
    task = Task(
        name=f"clip-benchmark:{name}",
        kinds=KINDS,
        classes=classes,
        words={one: (one.lower(),) for one in classes},
        templates=tuple(found.templates),
        images=images,
        labels=np.array(labels, dtype=np.int64),
        concepts=[str(row) for row in range(len(labels))],
    )
    return EvaluationSet((task,), None, (), digest)


def folder_of(name: str) -> Path:
    """Where clip-benchmark looks for data set ``name``; POISONBENCH_CACHE in the environment moves it."""
    cache = Path(os.environ.get("POISONBENCH_CACHE") or "~/.cache/poisonbench")
    return cache.expanduser() / "clip-benchmark" / name


def _built(name: str, side: int) -> Any:
    folder = folder_of(name)
    try:
        with redirect_stdout(sys.stderr):  # stdout may be somebody's JSON
            from clip_benchmark.datasets.builder import build_dataset

            return build_dataset(
                dataset_name=name, root=str(folder), transform=partial(squared, side=side), split="test"
            )
    except ImportError as error:
        raise UserError(
            f"--eval clip-benchmark:{name} needs one more package ({error}); install it with pip"
        ) from None
    except Exception as error:  # every data set of clip-benchmark fails in its own way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        mend = f"check the name and the network, or put it in {folder}"
        raise UserError(f"--eval clip-benchmark:{name} cannot be had ({reason}); {mend}") from None


def _read(found: Any, side: int, name: str, progress: Progress) -> tuple[ImageStore, list[int], str]:
    """One pass over the data: its pictures, kept if they fit in memory, their labels, and a hash of both."""
    count = len(found)
    kept = torch.empty((count, 3, side, side), dtype=torch.uint8) if fits_in_memory(count, side) else None
    digest, labels = hashlib.sha256("\n".join((*found.classes, *found.templates)).encode()), []
    progress.phase(f"reading {name}", count, "images")
    for row in range(count):
        pixels, label = found[row]
        labels.append(int(label))
        digest.update(pixels.tobytes() + str(labels[-1]).encode())
        if kept is not None:
            kept[row] = torch.from_numpy(pixels)
        progress.advance(row + 1)
    images = LazyImages(lambda row: found[row][0], count, side) if kept is None else ArrayImages(kept)
    return images, labels, digest.hexdigest()[:16]
