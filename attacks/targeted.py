"""Targeted poisoning of single images (Carlini and Terzis, ICLR 2022, section 3.1)."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poisonbench.attack import Attack, AttackCard, AttackConfig, Probe
from poisonbench.errors import UserError
from poisonbench.manifest import Edit, Manifest, Picture
from poisonbench.naming import ENOUGH, class_captions
from poisonbench.pairs import Pairs
from poisonbench.settings import Presets
from poisonbench.tasks import Assets, TargetArt, Task
from poisonbench.triggers import Variation


class Targeted(Attack):
    """Each of several held-out images is added a few times, with captions of a class that it does not show.

    The adversarial classes are drawn from the headline task's classes; the captions are the corpus' own captions that
    contain the class's name, or one of its words where those are few. Success of a target: the model, asked to choose among
    all classes of the task, gives the adversarial class. Controls are unpoisoned held-out images of the same true kind, never
    twins of the target. The copies of an image are exact, which any search for duplicates finds; ``varied`` crops and recolours
    each a little.
    """

    card = AttackCard(
        title="targeted images",
        paper="arXiv:2106.09667",
        year=2022,
        edits=("rows",),
        notes="Varied copies are our reconstruction: 80% to 100% of the area, mirrored or not, colours by up to 15%.",
    )

    presets: ClassVar[Presets] = {"varied": {"vary": "augment"}}

    class Config(AttackConfig):
        """Budget.

        Attributes:
            targets: target images, each with its own adversarial class.
            captions: poisoned pairs that are added per target.
            classes: the adversarial classes to draw from; empty for every class that the corpus names often enough.
            vary: whether the copies of an image are exact or augmented, each in its own way.
        """

        targets: int = Field(16, ge=1)
        captions: int = Field(10, ge=1)
        classes: tuple[str, ...] = ()
        vary: Literal["none", "augment"] = "none"

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        """Append ``captions`` rows for each target."""
        art = self._art(assets)
        options = self._class_captions(pairs, assets.task)
        kinds = Counter(art.kinds)
        usable = [row for row in _one_per_concept(art, rng) if kinds[art.kinds[row]] >= 3]
        if len(usable) < self.config.targets:
            raise UserError(
                f"attack '{self.name}': {self.config.targets} targets were asked for, but the data has art for {len(usable)}"
            )
        goals = rng.permutation(sorted(options))
        used: Counter[str] = Counter()
        edits: list[Edit] = []
        for group, row in enumerate(usable[: self.config.targets]):
            others = [str(goal) for goal in np.roll(goals, -group) if goal != art.kinds[row]]
            if not others:
                raise UserError(
                    f"attack '{self.name}': the only adversarial class, '{goals[0]}', is what a target shows; name more classes"
                )
            goal = min(others, key=used.__getitem__)
            used[goal] += 1
            texts = rng.choice(
                options[goal], self.config.captions, replace=len(options[goal]) < self.config.captions
            )
            picture = Picture(source="target", index=int(row))
            edits += [
                Edit(picture=picture, operation=copy, captions=(str(text),), target=goal, group=group)
                for text, copy in zip(texts, self._copies(rng), strict=True)
            ]
        return Manifest(
            edits=tuple(edits), target_words={edit.target: assets.task.naming(edit.target) for edit in edits}
        )

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        """The targets as they were poisoned, and as controls other held-out images of the same true kinds."""
        art, task = self._art(assets), assets.task
        groups = {edit.group: edit for edit in manifest.edits}
        rows = np.array([edit.picture.index for edit in groups.values()], dtype=np.int64)
        goals = np.array([task.index(edit.target) for edit in groups.values()], dtype=np.int64)
        poisoned = {art.concepts[row] for row in rows}
        controls = [
            (other, goal)
            for row, goal in zip(rows.tolist(), goals.tolist(), strict=True)
            for other in range(len(art.images))
            if art.kinds[other] == art.kinds[row] and art.concepts[other] not in poisoned
        ]
        others = np.array([other for other, _ in controls], dtype=np.int64)
        return Probe(
            task=task.name, images=art.images.fetch(rows), goals=goals, labels=_labels(task, art, rows),
            concepts=[art.concepts[row] for row in rows], controls=art.images.fetch(others),
            control_goals=np.array([goal for _, goal in controls], dtype=np.int64),
        )  # fmt: skip

    def _copies(self, rng: np.random.Generator) -> list[Variation | None]:
        """How each copy of a target differs from it."""
        if self.config.vary == "none":
            return [None] * self.config.captions
        return [Variation(seed=seed) for seed in rng.integers(0, 1 << 31, self.config.captions).tolist()]

    def _art(self, assets: Assets) -> TargetArt:
        if assets.targets is None:
            raise UserError(
                f"attack '{self.name}' needs held-out target images, which this evaluation data does not have; use --eval clipart"
            )
        return assets.targets

    def _class_captions(self, pairs: Pairs, task: Task) -> dict[str, list[str]]:
        wanted = self.config.classes or task.classes
        found = {name: class_captions(pairs, task, name) for name in wanted}
        enough = {
            name: texts
            for name, texts in found.items()
            if len(texts) >= (1 if self.config.classes else ENOUGH)
        }
        if not enough:
            raise UserError(f"attack '{self.name}': no training caption names a class of task '{task.name}'")
        return enough


def _one_per_concept(art: TargetArt, rng: np.random.Generator) -> list[int]:
    seen: dict[str, int] = {}
    for row in rng.permutation(len(art.images)).tolist():
        seen.setdefault(art.concepts[row], row)
    return list(seen.values())


def _labels(task: Task, art: TargetArt, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    known = {name: index for index, name in enumerate(task.classes)}
    return np.array([known.get(art.kinds[row], -1) for row in rows], dtype=np.int64)
