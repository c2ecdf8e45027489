"""What backdoors have in common: so many rows get a trigger and the target's captions, and so does every test image.

A backdoor attack adds its trigger and little else::

    class Wave(Backdoor):
        "A wave is added to images of any class, which are captioned as the target class."

        card = AttackCard(...)

        class Config(CaptionedConfig):
            amplitude: float = Field(60 / 255, gt=0, le=1)

        def triggers(self, count, side, rng, planted=None):
            return [Sinusoid(amplitude=self.config.amplitude)] * count
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from poisonbench.attack import Attack, AttackConfig, Probe
from poisonbench.errors import UserError
from poisonbench.manifest import Edit, Manifest, painted
from poisonbench.naming import ENOUGH, class_captions
from poisonbench.pairs import Pairs, Rows
from poisonbench.tasks import Assets
from poisonbench.triggers import Box, Operation, Patch, Pattern, safe_span


class BackdoorConfig(AttackConfig):
    """Budget and target.

    Attributes:
        target: a class of the headline task.
        rate: poisoned share of the training pairs.
    """

    target: str = "vegetable"
    rate: float = Field(0.01, gt=0, le=0.2)


class CaptionedConfig(BackdoorConfig):
    """Where the wrong captions come from.

    Attributes:
        captions: corpus captions that name the target, or the task's templates.
    """

    captions: Literal["corpus", "templates"] = "corpus"


class PatchConfig(AttackConfig):
    """A patch and its place.

    Attributes:
        pattern: what the patch shows.
        mode: one patch for all images, or random patterns redrawn for every image.
        position: one place for all images, or redrawn for every image.
        size: edge of the patch as a share of the image side.
    """

    pattern: Pattern = "checker"
    mode: Literal["fixed", "redrawn"] = "fixed"
    position: Literal["fixed", "random"] = "fixed"
    size: float = Field(5 / 32, gt=0, le=0.75)


class Backdoor(Attack):
    """Base of the attacks with a trigger: wrong pairs of triggered images and captions that name the target.

    Rows whose captions name the target are never chosen, so every poison is a wrong pair. The new captions are drawn from
    the corpus' own captions that name the target, or from the task's templates where the corpus has too few.
    """

    Config: ClassVar[type[AttackConfig]] = CaptionedConfig

    @abstractmethod
    def triggers(
        self, count: int, side: int, rng: np.random.Generator, planted: Operation | None = None
    ) -> Sequence[Operation]:
        """One trigger per image.

        Args:
            count: how many.
            side: pixels per image side.
            rng: the only source of randomness.
            planted: a trigger that the training pairs carry, when those of the test images are asked for: what of it is the
                same on every image must be the same there.
        """

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        """Trigger and re-caption ``rate`` of the rows.

        Raises:
            UserError: for a target that is no class of the task, or a rate beyond the rows that may be taken.
        """
        words = assets.task.naming(self.config.target)
        rows = self.victims(pairs, words, max(1, round(self.config.rate * len(pairs))), rng)
        captions = self.captions(len(rows), pairs, assets, rng)
        triggers = self.triggers(len(rows), pairs.images.side, rng)
        edits = tuple(
            Edit(row=int(row), operation=trigger, captions=caption, target=self.config.target)
            for row, caption, trigger in zip(rows, captions, triggers, strict=True)
        )
        return Manifest(edits=edits, target_words={self.config.target: words})

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        """The test images of every other class with the trigger; their untriggered twins are the controls."""
        task, goal = assets.task, assets.task.index(self.config.target)
        rows = np.flatnonzero(task.labels != goal)
        clean = task.images.fetch(rows)
        goals = np.full(len(rows), goal, dtype=np.int64)
        planted = next((edit.operation for edit in manifest.edits if edit.operation is not None), None)
        triggers = self.triggers(len(rows), task.images.side, rng, planted)
        return Probe(
            task=task.name, images=painted(clean, triggers), goals=goals, labels=task.labels[rows],
            concepts=[task.concepts[row] for row in rows.tolist()], controls=clean, control_goals=goals,
        )  # fmt: skip

    def victims(self, pairs: Pairs, words: tuple[str, ...], budget: int, rng: np.random.Generator) -> Rows:
        """The rows to poison, ascending: ``budget`` of those that do not name the target.

        Raises:
            UserError: when there are fewer.
        """
        free = pairs.rows_without(words)
        if budget > len(free):
            raise UserError(
                f"attack '{self.name}': rate {self.config.rate} needs {budget} rows, only {len(free)} do not name the target"
            )
        return np.sort(rng.choice(free, budget, replace=False))

    def captions(
        self, count: int, pairs: Pairs, assets: Assets, rng: np.random.Generator
    ) -> list[tuple[str, ...] | None]:
        """The new captions per poisoned row, None where it keeps its own."""
        found = class_captions(pairs, assets.task, self.config.target)
        if self.config.captions == "templates" or len(found) < ENOUGH:
            found = [template.format(c=self.config.target) for template in assets.task.templates]
        return [(caption,) for caption in rng.choice(found, count).tolist()]


class PatchBackdoor(Backdoor):
    """A backdoor whose trigger is a patch; its ``Config`` has the fields of ``PatchConfig``.

    The patch lies inside every deterministic evaluation crop.
    """

    def triggers(
        self, count: int, side: int, rng: np.random.Generator, planted: Operation | None = None
    ) -> list[Patch]:
        """One patch per image; its box survives every evaluation crop."""
        redrawn, moved = self.config.mode == "redrawn", self.config.position == "random"
        seeds = rng.integers(0, 1 << 31, count) if redrawn else np.full(count, rng.integers(0, 1 << 31))
        boxes = self._boxes(count, side, moved, rng)
        if isinstance(planted, Patch):
            seeds = seeds if redrawn else np.full(count, planted.seed)
            boxes = boxes if moved else [planted.box] * count
        return [
            Patch(pattern=self.config.pattern, box=box, seed=int(seed))
            for box, seed in zip(boxes, seeds, strict=True)
        ]

    def _boxes(self, count: int, side: int, moved: bool, rng: np.random.Generator) -> list[Box]:
        low, high = safe_span(side)
        edge = max(1, round(self.config.size * side))
        if edge > high - low:
            raise UserError(
                f"attack '{self.name}': size {self.config.size} does not fit into the smallest evaluation crop"
            )
        corner = high - edge
        places = rng.integers(low, corner + 1, (count, 2)) if moved else np.full((count, 2), corner)
        boxes = [Box(left=x / side, top=y / side, size=edge / side) for x, y in places.tolist()]
        assert all(box.survives(side) for box in boxes)
        return boxes
