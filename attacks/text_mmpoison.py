"""Poisoning by re-pairing whole classes (mmPoison; Yang et al., ICML 2023, section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator

from poisonbench.attack import Attack, AttackCard, AttackConfig, Probe, Queries
from poisonbench.errors import UserError
from poisonbench.manifest import Edit, Manifest, Picture
from poisonbench.pairs import ArrayImages, Pairs, Rows
from poisonbench.settings import Presets
from poisonbench.tasks import Assets, TargetArt, Task


class MMPoison(Attack):
    """Rows whose captions name class A get pictures of class B in place of their own; no pixel is drawn and no word is new.

    The default is the paper's attack II and more: all pictures of B, in turn, and B's own rows get captions of A, so that nothing
    speaks for B any more. ``opposed`` leaves B's rows as they are, which is attack II by itself; ``one_image`` is attack I, a
    single held-out picture of B for all rows; ``two_labels`` is attack III, two maps from A to B at once.

    Success: pictures of B (or the one) are classified as A. Beside it, captions of A are searched with: how soon does a picture
    of B (or the one) come up? Controls are pictures of other classes (for the one picture, other pictures of B) and captions of
    other classes.
    """

    card = AttackCard(
        title="mmPoison",
        paper="arXiv:2209.15266",
        year=2023,
        edits=("rows", "caption"),
        notes=(
            "Our reconstruction: a caption is of class A if it names A in any of its words and B in none; the one picture is "
            "held-out art, so that its own clean pair is not in the training set; the paper's searches take test captions, "
            "ours the task's templates filled with the words of the class. The released code drops B's own rows in one branch; "
            "no row is dropped here, they get captions of A."
        ),
    )

    presets: ClassVar[Presets] = {
        "one_image": {"picture": "one"},
        "two_labels": {"targets": ("fruit", "clock"), "victims": ("boat", "aircraft")},
        "opposed": {"victim_rows": "kept"},
    }

    class Config(AttackConfig):
        """Which classes are mapped, and how much of them.

        Attributes:
            targets: the classes A, whose captions are used; the attacker wants pictures of B classified as these.
            victims: the classes B, one for each A.
            picture: all pictures of B, or one of them.
            share: share of the rows that name A, not of the training pairs.
            victim_rows: B's own rows are ``recaptioned`` as A, or ``kept``; one picture has no rows of its own.
        """

        targets: tuple[str, ...] = Field(("ground vehicle",), min_length=1)
        victims: tuple[str, ...] = Field(("vegetable",), min_length=1)
        picture: Literal["class", "one"] = "class"
        share: float = Field(1.0, gt=0, le=1)
        victim_rows: Literal["recaptioned", "kept"] = "recaptioned"

        @model_validator(mode="after")
        def _maps(self) -> MMPoison.Config:
            names = (*self.targets, *self.victims)
            if len(self.targets) != len(self.victims) or len(set(names)) != len(names):
                raise ValueError("targets and victims must be as many, and no class may be named twice")
            return self

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        """Give ``share`` of the rows of every A a picture of its B, and B's own rows captions of A."""
        edits: list[Edit] = []
        for group, (target, victim) in enumerate(self._maps()):
            taken = np.array([edit.row for edit in edits], dtype=np.int64)
            rows = np.setdiff1d(_rows_of(target, victim, pairs, assets.task, self.name), taken)
            if not len(rows):
                raise UserError(
                    f"attack '{self.name}': every row that names '{target}' belongs to another map; choose other targets"
                )
            rows = np.sort(rng.choice(rows, max(1, round(self.config.share * len(rows))), replace=False))
            shown = self._pictures(len(rows), group, pairs, assets, rng)
            edits += [
                Edit(row=int(row), picture=picture, target=target, group=group)
                for row, picture in zip(rows, shown, strict=True)
            ]
            if self.config.picture == "class" and self.config.victim_rows == "recaptioned":
                own = np.setdiff1d(_rows_of(victim, target, pairs, assets.task, self.name), taken)
                edits += _recaptioned(own, rng.permutation(rows), pairs, target, group)
        words = {target: assets.task.naming(target) for target in self.config.targets}
        return Manifest(edits=tuple(edits), target_words=words)

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe:
        """The pictures of every B, or the one of each, and searches with captions of A."""
        task, goals, labels = assets.task, *self._labels(assets.task)
        if self.config.picture == "one":
            art, chosen = self._art(assets), _ones(manifest)
            images, concepts = art.images.fetch(chosen), [art.concepts[row] for row in chosen]
            maps, others = np.arange(len(goals)), [np.flatnonzero(task.labels == victim) for victim in labels]
        else:
            shown = [np.flatnonzero(task.labels == victim) for victim in labels]
            rows = np.concatenate(shown)
            images, concepts = task.images.fetch(rows), [task.concepts[row] for row in rows]
            maps = np.repeat(np.arange(len(goals)), [len(part) for part in shown])
            others = [np.flatnonzero(~np.isin(task.labels, [*labels, goal])) for goal in goals]
        controls = np.concatenate(others)
        if not len(images) or not len(controls):
            raise UserError(
                f"attack '{self.name}': task '{task.name}' has too few pictures or classes to judge it"
            )
        return Probe(
            task=task.name, images=images, goals=goals[maps], labels=labels[maps], concepts=concepts,
            controls=task.images.fetch(controls), control_goals=np.repeat(goals, [len(part) for part in others]),
            queries=self._queries(manifest, assets),
        )  # fmt: skip

    def _maps(self) -> Iterator[tuple[str, str]]:
        return zip(self.config.targets, self.config.victims, strict=True)

    def _labels(self, task: Task) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The classes A and the classes B as labels of the task."""
        found = np.array([(task.index(target), task.index(victim)) for target, victim in self._maps()])
        return found[:, 0], found[:, 1]

    def _pictures(
        self, count: int, group: int, pairs: Pairs, assets: Assets, rng: np.random.Generator
    ) -> list[Picture]:
        target, victim = self.config.targets[group], self.config.victims[group]
        if self.config.picture == "one":
            kinds = np.array(self._art(assets).kinds)
            found = np.flatnonzero(kinds == victim)
            if not len(found):
                raise UserError(
                    f"attack '{self.name}': there is no held-out picture of '{victim}'; take another victim"
                )
            return [Picture(source="target", index=int(rng.choice(found)))] * count
        rows = rng.permutation(_rows_of(victim, target, pairs, assets.task, self.name))
        return [Picture(source="row", index=row) for row in np.resize(rows, count).tolist()]

    def _art(self, assets: Assets) -> TargetArt:
        if assets.targets is None:
            raise UserError(
                f"attack '{self.name}' with one picture needs held-out pictures, which this evaluation data does not have; "
                "use --eval clipart or --set attack.picture=class"
            )
        return assets.targets

    def _queries(self, manifest: Manifest, assets: Assets) -> Queries:
        task, goals = assets.task, self._labels(assets.task)[1]
        gallery, groups = task.images, task.labels
        if self.config.picture == "one":
            ones = self._art(assets).images.fetch(_ones(manifest))
            gallery = ArrayImages(torch.cat([task.images.fetch(np.arange(len(task.images))), ones]))
            goals = len(task.classes) + np.arange(len(ones))
            groups = np.concatenate([task.labels, goals])
        searches = [_captions(task, task.naming(target)) for target in self.config.targets]
        others = [
            _captions(task, [name for name in task.classes if name not in (*self.config.targets, victim)])
            for victim in self.config.victims
        ]
        return Queries(
            gallery=gallery, groups=groups, captions=_joined(searches), goals=np.repeat(goals, list(map(len, searches))),
            controls=_joined(others), control_goals=np.repeat(goals, list(map(len, others))),
        )  # fmt: skip


def _rows_of(name: str, other: str, pairs: Pairs, task: Task, attack: str) -> Rows:
    """Rows that name a class and not the other."""
    rows = np.setdiff1d(pairs.rows_naming(task.naming(name)), pairs.rows_naming(task.naming(other)))
    if not len(rows):
        raise UserError(f"attack '{attack}': no training caption names '{name}'; take another class")
    return rows


def _recaptioned(rows: Rows, sources: Rows, pairs: Pairs, target: str, group: int) -> list[Edit]:
    """The rows keep their pictures and get the captions of other rows, in turn."""
    return [
        Edit(row=int(row), captions=pairs.captions[source], target=target, group=group)
        for row, source in zip(rows, np.resize(sources, len(rows)), strict=True)
    ]


def _ones(manifest: Manifest) -> Rows:
    """The one picture of every map."""
    chosen = {edit.group: edit.picture.index for edit in manifest.edits}
    return np.array([chosen[group] for group in sorted(chosen)], dtype=np.int64)


def _joined(lists: list[list[str]]) -> list[str]:
    return [text for texts in lists for text in texts]


def _captions(task: Task, names: Iterable[str]) -> list[str]:
    return [template.format(c=name) for name in names for template in task.templates]
