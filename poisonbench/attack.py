"""The contract of an attack: what it does to the pairs, and which inputs show whether it worked.

A plugin author writes one class::

    class MyAttack(Attack):
        "One sentence: what is poisoned and how (Author et al., Venue Year)."

        card = AttackCard(title="My attack", paper="arXiv:0000.00000", year=2026, edits=("image", "caption"))

        class Config(AttackConfig):
            target: str = "vegetable"
            rate: float = Field(0.01, gt=0, le=0.2)

        def poison(self, pairs, assets, rng): ...  # -> Manifest
        def probe(self, manifest, assets, rng): ...  # -> Probe

``poison`` decides *which* rows become *what* and returns a manifest; the runner applies it, so that every defence
meets the same poisons. ``probe`` gives the inputs to classify after training. Both draw only from the ``rng`` they are
given, sizes are shares of the image side, and neither sees the defence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from poisonbench.manifest import Manifest
from poisonbench.pairs import Pairs
from poisonbench.settings import Settings, validated
from poisonbench.tasks import Assets


class AttackCard(Settings):
    """What a reader must know of an attack before its numbers.

    Attributes:
        title: the name in tables.
        paper: where it was published ("arXiv:..."), or "-" for a control.
        year: year of publication.
        edits: what the attacker changes.
        surrogate: whether the attacker needs a trained model of its own.
        notes: what is our reconstruction, and where implementations differ.
    """

    title: str
    paper: str
    year: int
    edits: tuple[Literal["image", "caption", "rows"], ...]
    surrogate: bool = False
    notes: str = ""


class AttackConfig(Settings):
    """Base of every attack's configuration; unknown fields are refused."""


@dataclass(frozen=True)
class Probe:
    """The inputs that show whether an attack worked, and what counts as success.

    ``images`` carry the attack (a trigger, or the poisoned target itself); ``controls`` do not, and give the rate at which
    the same model would give the goal anyway. No image whose true class is its goal may be in either.

    Attributes:
        task: the task among whose classes the model chooses.
        images: uint8, (n, 3, side, side).
        goals: class index that the attacker wants, (n,).
        labels: true class index, (n,), -1 where the true class is none of the task's.
        concepts: what is drawn, (n,); intervals resample by it.
        controls: uint8, (m, 3, side, side): the untriggered twins, or unpoisoned images of the same true classes.
        control_goals: class index that would count as a false success, (m,).
    """

    task: str
    images: Tensor
    goals: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    concepts: Sequence[str]
    controls: Tensor
    control_goals: npt.NDArray[np.int64]


class Attack(ABC):
    """Base class of every attack; see the module's text for the whole manual.

    Attributes:
        name: set by the registry from the entry point's name.
        card: what the attack is.
        Config: its configuration, with a default for every field.
    """

    name: ClassVar[str] = ""
    card: ClassVar[AttackCard]
    Config: ClassVar[type[AttackConfig]] = AttackConfig

    def __init__(self, config: Any = None) -> None:
        """``config`` is an instance of ``Config``, a mapping of fields, or None for the defaults."""
        self.config: Any = (
            config
            if isinstance(config, self.Config)
            else validated(self.Config, config or {}, f"attack '{self.name}'")
        )

    @abstractmethod
    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        """Choose the poisons.

        Args:
            pairs: the clean training pairs.
            assets: downstream classes with the words that name them, and held-out art.
            rng: the only source of randomness.

        Returns:
            The manifest of every changed or appended row.

        Raises:
            UserError: when the data cannot carry the attack (no class of that name, too few rows).
        """

    @abstractmethod
    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe | None:
        """The inputs to classify after training, or None for an attack without a goal (the clean control)."""
