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

An attack with a trigger starts from ``poisonbench.backdoor.Backdoor``, which has both, and adds the trigger alone.
Variants are named presets of one plugin, chosen with a colon, as in ``my_attack:strong``::

        presets: ClassVar[Presets] = {"strong": {"rate": 0.05}}

``poison`` decides *which* rows become *what* and returns a manifest; the runner applies it, so that every defence
meets the same poisons. ``probe`` gives the inputs to classify after training. Both draw only from the ``rng`` they are
given, sizes are shares of the image side, and neither sees the defence. An instance keeps nothing: the poisons are drawn once
for all defences, and another process, given the manifest from its file, asks for the probe.
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
from poisonbench.pairs import ImageStore, Pairs
from poisonbench.settings import Presets, Settings, validated
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
class Queries:
    """Captions to search pictures with, for an attack that also wants to be found: text-to-image retrieval beside the ASR.

    Attributes:
        gallery: the pictures that are searched.
        groups: what each picture of the gallery belongs to, (g,).
        captions: what is searched for, q of them.
        goals: the group whose pictures the attacker wants on top, (q,).
        controls: captions of things that the attack leaves alone, c of them.
        control_goals: the group that would count as a false success, (c,).
    """

    gallery: ImageStore
    groups: npt.NDArray[np.int64]
    captions: Sequence[str]
    goals: npt.NDArray[np.int64]
    controls: Sequence[str]
    control_goals: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """The inputs that show whether an attack worked, and what counts as success.

    ``images`` carry the attack (a trigger, or the poisoned target itself); ``controls`` do not, and give the rate at which
    the same model would give the goal anyway. No image whose true class is its goal may be in either. An attack that changes
    no picture, so that every image of a class is attacked, has images of other classes as controls.

    Attributes:
        task: the task among whose classes the model chooses.
        images: uint8, (n, 3, side, side).
        goals: class index that the attacker wants, (n,).
        labels: true class index, (n,), -1 where the true class is none of the task's.
        concepts: what is drawn, (n,); stored with the outputs, so that they can be resampled by it.
        controls: uint8, (m, 3, side, side): the untriggered twins, or unpoisoned images of the same true classes.
        control_goals: class index that would count as a false success, (m,).
        queries: searches whose results are measured too, or None.
    """

    task: str
    images: Tensor
    goals: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    concepts: Sequence[str]
    controls: Tensor
    control_goals: npt.NDArray[np.int64]
    queries: Queries | None = None


class Attack(ABC):
    """Base class of every attack; see the module's text for the whole manual.

    Attributes:
        name: set by the registry from the entry point's name.
        card: what the attack is.
        Config: its configuration, with a default for every field.
        presets: named variants, each the fields of ``Config`` that it changes.
    """

    name: ClassVar[str] = ""
    card: ClassVar[AttackCard]
    presets: ClassVar[Presets] = {}
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
