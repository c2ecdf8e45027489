"""Where image-caption pairs and downstream tasks come from."""

from __future__ import annotations

from dataclasses import dataclass

from poisonbench.pairs import Pairs
from poisonbench.tasks import Assets, TargetArt, Task


@dataclass(frozen=True)
class Data:
    """Everything a cell reads: pairs split once by concept, and what the model is judged on.

    Attributes:
        train: the pairs that attacks poison and models train on.
        clean: pairs for defenders that are allowed some.
        validation: the only pairs on which recipes and defences may be tuned.
        tasks: downstream tasks; the first is the headline, among whose classes targets are named.
        targets: held-out art for targeted poisoning, or None.
        validation_task: zero-shot classification of the validation pairs, or None where they have no classes.
        synonyms: word to synonyms, for text augmentation.
        skipped: one line per row that could not be used, naming it.
        fingerprint: a hash of all of it.
    """

    train: Pairs
    clean: Pairs
    validation: Pairs
    tasks: tuple[Task, ...]
    targets: TargetArt | None
    validation_task: Task | None
    synonyms: dict[str, tuple[str, ...]]
    skipped: tuple[str, ...]
    fingerprint: str

    @property
    def headline(self) -> Task:
        """The first task."""
        return self.tasks[0]

    @property
    def assets(self) -> Assets:
        """What attacks are given."""
        return Assets(self.headline, self.targets)
