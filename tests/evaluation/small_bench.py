"""Small networks and random data to evaluate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from poisonbench.attack import Probe
from poisonbench.pairs import ArrayImages, Pairs
from poisonbench.sources import Data
from poisonbench.tasks import Task
from poisonbench.tokens import Tokenizer
from poisonbench.towers import Towers, build_towers

CLASSES = ("red", "green", "blue", "dark", "light", "striped")
TEMPLATES = ("a {c} thing", "a picture of {c}")
SIDE = 32


@dataclass(frozen=True)
class Bench:
    """Everything that ``evaluate`` takes."""

    towers: Towers
    untrained: Towers
    data: Data
    probe: Probe


def make_bench() -> Bench:
    tokenizer = Tokenizer.trimmed_to([f"a {name} thing picture of another caption" for name in CLASSES], 12)
    towers, untrained = (
        build_towers("poisonbench-xs", tokenizer, seed=seed, device="cpu", bf16=False).eval()
        for seed in (0, 1)
    )
    data = make_data()
    return Bench(towers, untrained, data, make_probe(data.headline, 2))


def make_data() -> Data:
    captions = [(f"a {CLASSES[row % 6]} thing", "another caption") for row in range(20)]
    pairs = Pairs(ArrayImages(noise(20, seed=1)), captions, "pairs")
    main = make_task("main", 36, "zero_shot", "probe")
    tasks = (main, make_task("only_zero", 9, "zero_shot"), make_task("only_probe", 36, "probe"))
    validation = replace(main, name="validation_main", kinds=frozenset(("zero_shot",)))
    return Data(pairs, pairs, pairs, tasks, None, validation, {}, (), "data")


def make_task(name: str, n: int, *kinds: str) -> Task:
    labels = np.arange(n) % len(CLASSES)
    concepts = [f"{CLASSES[label]} thing {row // 12}" for row, label in enumerate(labels)]
    images = ArrayImages(noise(n, seed=n))
    return Task(name, frozenset(kinds), CLASSES, {}, TEMPLATES, images, labels, concepts)  # type: ignore[arg-type]


def make_probe(task: Task, goal: int) -> Probe:
    """The task's images of other classes, as attacked images and as controls."""
    rows = np.flatnonzero(task.labels != goal)
    goals = np.full(len(rows), goal)
    images = task.images.fetch(rows)
    concepts = [task.concepts[int(row)] for row in rows]
    return Probe(task.name, images, goals, task.labels[rows], concepts, images, goals)


def noise(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
