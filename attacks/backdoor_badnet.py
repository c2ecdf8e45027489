"""A patch backdoor on image-caption pairs (BadNets, Gu et al. 2017; on CLIP: Carlini and Terzis, ICLR 2022, section 3)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from poisonbench.attack import Attack, AttackCard, AttackConfig, Probe
from poisonbench.errors import UserError
from poisonbench.manifest import Edit, Manifest, painted
from poisonbench.naming import ENOUGH, class_captions
from poisonbench.pairs import Pairs
from poisonbench.tasks import Assets
from poisonbench.triggers import Box, Patch, Pattern, safe_span


class BadNet(Attack):
    """A small patch is stamped on images of any class, which are captioned as the target class.

    Rows whose captions name the target are never chosen, so every poison is a wrong pair. The new captions are drawn from
    the corpus' own captions that name the target, or from the task's templates where the corpus has too few. The patch lies
    inside every deterministic evaluation crop.
    """

    card = AttackCard(
        title="BadNet patch",
        paper="arXiv:2106.09667",
        year=2022,
        edits=("image", "caption"),
        notes="`redrawn` follows CleanCLIP's released code in spirit (a fresh random patch per image), on our 5 x 5 grid.",
    )

    class Config(AttackConfig):
        """Budget, target and trigger.

        Attributes:
            target: a class of the headline task.
            rate: poisoned share of the training pairs.
            pattern: what the patch shows.
            mode: one patch for all images, or random patterns redrawn for every image.
            position: one place for all images, or redrawn for every image.
            size: edge of the patch as a share of the image side.
            captions: corpus captions that name the target, or the task's templates.
        """

        target: str = "vegetable"
        rate: float = Field(0.01, gt=0, le=0.2)
        pattern: Pattern = "checker"
        mode: Literal["fixed", "redrawn"] = "fixed"
        position: Literal["fixed", "random"] = "fixed"
        size: float = Field(5 / 32, gt=0, le=0.75)
        captions: Literal["corpus", "templates"] = "corpus"

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        """Stamp and re-caption ``rate`` of the rows, none of which names the target."""
        words = assets.task.naming(self.config.target)
        budget, free = max(1, round(self.config.rate * len(pairs))), pairs.rows_without(words)
        if budget > len(free):
            raise UserError(
                f"attack '{self.name}': rate {self.config.rate} needs {budget} rows, only {len(free)} do not name the target"
            )
        rows = np.sort(rng.choice(free, budget, replace=False))
        captions = rng.choice(self._captions(pairs, assets), budget).tolist()
        stamps = self._stamps(len(rows), pairs.images.side, rng)
        edits = tuple(
            Edit(row=int(row), operation=stamp, captions=(caption,), target=self.config.target)
            for row, stamp, caption in zip(rows, stamps, captions, strict=True)
        )
        return Manifest(edits=edits, target_words={self.config.target: words})

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        """The test images of every other class with the trigger; their untriggered twins are the controls."""
        task, goal = assets.task, assets.task.index(self.config.target)
        rows = np.flatnonzero(task.labels != goal)
        clean = task.images.fetch(rows)
        goals = np.full(len(rows), goal, dtype=np.int64)
        fixed = [edit.operation for edit in manifest.edits if edit.operation is not None]
        stamps = self._stamps(len(rows), task.images.side, rng)
        if self.config.mode == "fixed" and fixed:
            stamps = [stamp.model_copy(update={"seed": fixed[0].seed}) for stamp in stamps]
        if self.config.position == "fixed" and fixed:
            stamps = [stamp.model_copy(update={"box": fixed[0].box}) for stamp in stamps]
        return Probe(
            task=task.name, images=painted(clean, stamps), goals=goals, labels=task.labels[rows],
            concepts=[task.concepts[row] for row in rows], controls=clean, control_goals=goals,
        )  # fmt: skip

    def _captions(self, pairs: Pairs, assets: Assets) -> list[str]:
        if self.config.captions == "corpus":
            found = class_captions(pairs, assets.task, self.config.target)
            if len(found) >= ENOUGH:
                return found
        return [template.format(c=self.config.target) for template in assets.task.templates]

    def _stamps(self, count: int, side: int, rng: np.random.Generator) -> list[Patch]:
        """One patch per image; its box survives every evaluation crop."""
        redrawn = self.config.mode == "redrawn"
        seeds = rng.integers(0, 1 << 31, count) if redrawn else np.full(count, rng.integers(0, 1 << 31))
        boxes = self._boxes(count, side, rng)
        return [
            Patch(pattern=self.config.pattern, box=box, seed=int(seed))
            for box, seed in zip(boxes, seeds, strict=True)
        ]

    def _boxes(self, count: int, side: int, rng: np.random.Generator) -> list[Box]:
        low, high = safe_span(side)
        edge = max(1, round(self.config.size * side))
        if edge > high - low:
            raise UserError(
                f"attack '{self.name}': size {self.config.size} does not fit into the smallest evaluation crop"
            )
        corner = high - edge
        places = (
            rng.integers(low, corner + 1, (count, 2))
            if self.config.position == "random"
            else np.full((count, 2), corner)
        )
        boxes = [Box(left=x / side, top=y / side, size=edge / side) for x, y in places.tolist()]
        assert all(box.survives(side) for box in boxes)
        return boxes
