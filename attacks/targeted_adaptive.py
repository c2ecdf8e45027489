"""Targeted poisoning that knows OTCCLIP: a surrogate picks the captions that will look right (arXiv:2509.18717)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import cycle, groupby, islice
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from torch import Tensor

from poisonbench.attack import AttackCard
from poisonbench.attacks.surrogate import Surrogate, SurrogateConfig, WithSurrogate
from poisonbench.attacks.targeted import Targeted
from poisonbench.manifest import Edit, Manifest
from poisonbench.pairs import Pairs
from poisonbench.settings import Presets
from poisonbench.tasks import Assets, Task


class TargetedAdaptive(WithSurrogate, Targeted):
    """Every target gets those captions of its adversarial class that are nearest to it by optimal transport.

    Targets, classes, probe and controls are those of ``targeted``; only the captions are chosen rather than drawn. They are
    distinct paraphrases, no two of the same words, so that many are in a caption pool at once: where a defence takes one
    away and looks for a better one, the best that it finds may be another of them. With a ``pool``, more targets are drawn
    than are poisoned and the easiest are kept, those whose captions fit best. A target that the surrogate takes for its
    adversarial class anyway comes last, since it would be won without any poison.
    """

    card = AttackCard(
        title="targeted images, adaptive",
        paper="arXiv:2509.18717",
        year=2025,
        edits=("rows",),
        surrogate=True,
        notes="The paper reports an adaptive attack, not its recipe: surrogate, paraphrases and pool are our reconstruction.",
    )

    presets: ClassVar[Presets] = {**Targeted.presets, "easiest": {"pool": 2}}

    class Config(SurrogateConfig, Targeted.Config):
        """Budget and surrogate.

        Attributes:
            pool: targets that are considered for each that is poisoned; the data must have art for all of them.
        """

        pool: int = Field(1, ge=1)

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        """Append ``captions`` rows for each target."""
        config, art, task = self.config, self._art(assets), assets.task
        considered = config.model_copy(update={"targets": config.targets * config.pool})
        drawn = Targeted.poison(type(self)(considered), pairs, assets, rng)
        surrogate = self.surrogate(pairs, rng)
        written = {
            goal: paraphrases(texts, config.captions, task, goal)
            for goal, texts in self._class_captions(pairs, task).items()
        }
        plots = []
        for _, copies in groupby(drawn.edits, key=lambda edit: edit.group):
            edits = tuple(copies)
            image = art.images.fetch(np.array([edits[0].picture.index]))
            plots.append(_plot(edits, image, written[edits[0].target], surrogate, task))
        easiest = sorted(range(len(plots)), key=lambda at: (plots[at].vain, plots[at].cost))
        kept = [plots[at] for at in sorted(easiest[: config.targets])]
        edits = tuple(edit for group, plot in enumerate(kept) for edit in plot.poisons(group))
        return Manifest(edits=edits, target_words={edit.target: task.naming(edit.target) for edit in edits})


class Plot(NamedTuple):
    """What could be done with one target.

    Attributes:
        edits: its pairs as they were drawn.
        captions: the nearest captions, nearest first.
        cost: their mean transport cost.
        vain: whether the surrogate takes the target for its adversarial class without any poison.
    """

    edits: tuple[Edit, ...]
    captions: tuple[str, ...]
    cost: float
    vain: bool

    def poisons(self, group: int) -> list[Edit]:
        """The pairs with the chosen captions, which come again where they are too few."""
        texts = islice(cycle(self.captions), len(self.edits))
        return [
            edit.model_copy(update={"captions": (text,), "group": group})
            for edit, text in zip(self.edits, texts, strict=True)
        ]


def _plot(
    edits: tuple[Edit, ...], image: Tensor, options: Sequence[str], surrogate: Surrogate, task: Task
) -> Plot:
    """The nearest of ``options`` for the target ``image``, (1, 3, side, side)."""
    costs = surrogate.distances(image, options)[0]
    nearest = costs.argsort(stable=True)[: len(edits)]
    prompts = [template.format(c=name) for name in task.classes for template in task.templates]
    taken_for = surrogate.distances(image, prompts).view(len(task.classes), -1).mean(dim=1).argmin()
    return Plot(
        edits,
        captions=tuple(options[at] for at in nearest.tolist()),
        cost=float(costs[nearest].mean()),
        vain=int(taken_for) == task.index(edits[0].target),
    )


def paraphrases(texts: Sequence[str], count: int, task: Task, goal: str) -> list[str]:
    """The first of all captions that consist of the same words.

    Args:
        texts: the corpus' own captions of the class.
        count: where these are fewer, the task's templates join them, filled with every word for the class.
        task: has the templates and the words.
        goal: the class.
    """
    found = _distinct(texts)
    if len(found) >= count:
        return found
    words = task.naming(goal)
    return _distinct([*found, *(template.format(c=word) for template in task.templates for word in words)])


def _distinct(texts: Sequence[str]) -> list[str]:
    first: dict[frozenset[str], str] = {}
    for text in texts:
        first.setdefault(frozenset(re.findall(r"\w+", text.lower())), text)
    return list(first.values())
