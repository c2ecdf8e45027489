"""One model before all its tasks: the order in which outputs are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench.attack import Probe, Queries
from poisonbench.evaluation.attack_probe import check_probe
from poisonbench.evaluation.embeddings import embed_images, embed_texts
from poisonbench.evaluation.linear_probe import probe_predictions
from poisonbench.evaluation.outputs import Ints, Outputs, Part
from poisonbench.evaluation.retrieval import LIMIT, best_ranks, retrieval_ranks
from poisonbench.evaluation.zero_shot import best_classes, class_weights, logits
from poisonbench.pairs import ImageStore
from poisonbench.progress import Progress
from poisonbench.sources import Data
from poisonbench.tasks import Task
from poisonbench.towers import Towers


class Examination:
    """A trained network, an untrained one, and the data to judge them on."""

    def __init__(self, towers: Towers, untrained: Towers, data: Data, progress: Progress) -> None:
        self._towers, self._untrained, self._data, self._progress = towers, untrained, data, progress
        named = [*data.tasks, data.validation_task] if data.validation_task else list(data.tasks)
        self._tasks = {task.name: task for task in named if len(task.images)}
        self._outputs = Outputs()
        self._weights = cache(lambda name: class_weights(towers, self._tasks[name]))

    def run(self, probe: Probe | None) -> Outputs:
        """Everything, once; an attack's mistakes are found before any work."""
        if probe is not None:
            check_probe(probe, self._tasks.values())
        with _judging(self._towers, self._untrained):
            for task in self._tasks.values():
                if "zero_shot" in task.kinds:
                    self._zero_shot(task)
                if "probe" in task.kinds:
                    self._linear_probe(task)
            self._retrieval()
            if probe is not None:
                self._attack(probe)
            if probe is not None and probe.queries is not None:
                self._searches(probe.task, probe.queries)
        return self._outputs

    def glance(self, probe: Probe | None) -> Outputs:
        """The headline's zero-shot predictions and the attack alone, for models that a cell only mentions."""
        with _judging(self._towers):
            self._zero_shot(self._data.headline)
            if probe is not None:
                self._attack(probe)
        return self._outputs

    def _zero_shot(self, task: Task) -> None:
        best = self._classify(f"zero-shot {task.name}", task.images, task)
        self._outputs.add(
            "zero_shot", task.name, index=np.arange(len(best)), label=task.labels, concept=task.concepts,
            prediction=best[:, 0], top5=best,
        )  # fmt: skip

    def _attack(self, probe: Probe) -> None:
        task = self._tasks[probe.task]
        best = self._classify("attacked inputs", probe.images, task)
        self._outputs.add(
            "attack", task.name, index=np.arange(len(best)), label=probe.labels, concept=probe.concepts,
            goal=probe.goals, prediction=best[:, 0], top5=best,
        )  # fmt: skip
        best = self._classify("control inputs", probe.controls, task)
        self._outputs.add(
            "control", task.name, index=np.arange(len(best)),
            goal=probe.control_goals, prediction=best[:, 0], top5=best,
        )  # fmt: skip

    def _searches(self, task: str, queries: Queries) -> None:
        rows = np.arange(len(queries.gallery))
        self._progress.phase("evaluation: searches", total=len(rows), unit="images")
        gallery = embed_images(self._towers, queries.gallery, rows, self._progress.advance)
        searches: tuple[tuple[Part, Sequence[str], npt.NDArray[np.int64]], ...] = (
            ("query", queries.captions, queries.goals),
            ("query_control", queries.controls, queries.control_goals),
        )
        for part, captions, goals in searches:
            ranks = best_ranks(embed_texts(self._towers, captions), gallery, (goals, queries.groups))
            self._outputs.add(
                part, task, index=np.arange(len(ranks)), goal=goals, rank=ranks, concept=captions
            )

    def _classify(self, what: str, images: ImageStore | Tensor, task: Task) -> Ints:
        self._progress.phase(f"evaluation: {what}", total=len(images), unit="images")
        scores = logits(self._towers, images, self._weights(task.name), advance=self._progress.advance)
        return best_classes(scores)

    def _linear_probe(self, task: Task) -> None:
        networks: tuple[tuple[Part, Towers], ...] = (
            ("probe", self._towers),
            ("probe_untrained", self._untrained),
        )
        for part, towers in networks:
            self._progress.phase(
                f"evaluation: linear probe {task.name}", total=len(task.images), unit="images"
            )
            rows = np.arange(len(task.images))
            features = embed_images(towers, task.images, rows, self._progress.advance).numpy()
            test, predicted = probe_predictions(features, task.labels, task.concepts)
            if len(test) == 0:
                self._progress.note(f"task '{task.name}' has too few concepts for a linear probe; skipped")
                return
            self._outputs.add(
                part, task.name, index=test, label=task.labels[test], prediction=predicted,
                concept=[task.concepts[row] for row in test],
            )  # fmt: skip

    def _retrieval(self) -> None:
        pairs = self._data.validation
        if not len(pairs):
            return
        self._progress.phase("evaluation: retrieval", total=min(len(pairs), LIMIT), unit="pairs")
        to_text, to_image = retrieval_ranks(self._towers, pairs, self._progress.advance)
        rows = np.arange(len(to_text))
        self._outputs.add("retrieval_image", "validation", index=rows, rank=to_text)
        self._outputs.add("retrieval_text", "validation", index=rows, rank=to_image)


@contextmanager
def _judging(*networks: Towers) -> Iterator[None]:
    """Eval mode without gradients, and back to the mode before."""
    modes = [network.training for network in networks]
    try:
        for network in networks:
            network.eval()
        with torch.inference_mode():
            yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
