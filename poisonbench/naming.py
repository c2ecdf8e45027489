"""The corpus' own captions that name a class: what an attacker who reads the data would use."""

from __future__ import annotations

from poisonbench.pairs import Pairs
from poisonbench.tasks import Task

ENOUGH = 5
"""Fewer distinct captions than this would make all poisons of a class look alike."""


def class_captions(pairs: Pairs, task: Task, name: str) -> list[str]:
    """Distinct captions that contain the class name as whole words, or where those are few, any of the class's words."""
    by_name = pairs.captions_naming([name])
    return by_name if len(by_name) >= ENOUGH else pairs.captions_naming(task.naming(name))
