"""What opening an evaluation gives, whatever it was made from."""

from __future__ import annotations

from dataclasses import dataclass

from poisonbench.tasks import Kind, TargetArt, Task

KINDS: frozenset[Kind] = frozenset(("zero_shot", "probe"))


@dataclass(frozen=True)
class EvaluationSet:
    """Tasks and what came with them.

    Attributes:
        tasks: at least one.
        targets: pictures held out of the tasks for targeted poisoning, or None.
        skipped: one line per picture that could not be used.
        fingerprint: a hash of the content.
    """

    tasks: tuple[Task, ...]
    targets: TargetArt | None
    skipped: tuple[str, ...]
    fingerprint: str
