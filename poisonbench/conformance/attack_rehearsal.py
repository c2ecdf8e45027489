"""An attack carried out once on the tiny data, for the checks to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from poisonbench.attack import Probe
from poisonbench.conformance.check import Plugin, once
from poisonbench.conformance.data import tiny_data
from poisonbench.manifest import Edit, Manifest
from poisonbench.pairs import Pairs, Rows
from poisonbench.randomness import numpy_rng
from poisonbench.sources import Data


@dataclass(frozen=True)
class Rehearsal:
    """What an attack did.

    Attributes:
        data: the clean data.
        manifest: what the attack chose.
        poisoned: the training pairs seen through the manifest.
        probe: its inputs after training.
        drew: whether choosing the poisons used the generator.
    """

    data: Data
    manifest: Manifest
    poisoned: Pairs
    probe: Probe | None
    drew: bool

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits in the order of ``rows``."""
        return (*self.manifest.changed, *self.manifest.appended)

    @property
    def rows(self) -> Rows:
        """The poisoned row of every edit."""
        return self.manifest.rows(len(self.data.train))


def rehearse(plugin: Plugin, *, side: int = 32, seed: int = 0, **fields: Any) -> Rehearsal:
    """Carry out an attack from scratch, with ``fields`` of its configuration replaced."""
    attack = plugin(fields)
    data = tiny_data(side, wanted_classes(attack.config))
    rng = numpy_rng("conformance", "poison", seed)
    before = repr(rng.bit_generator.state)
    manifest = attack.poison(data.train, data.assets, rng)
    drew = repr(rng.bit_generator.state) != before
    probe = attack.probe(manifest, data.assets, numpy_rng("conformance", "probe", seed))
    return Rehearsal(data, manifest, manifest.apply(data.train, data.targets), probe, drew)


rehearsed = once(rehearse)
"""The same, carried out once for all checks that only look."""


def wanted_classes(config: Any) -> tuple[str, ...]:
    """The class names that a configuration asks for, in fields called target, victim, goal or class."""
    fields = [value for name, value in config if name.startswith(("target", "victim", "goal", "class"))]
    names = [value if isinstance(value, tuple) else (value,) for value in fields]
    return tuple(name for several in names for name in several if isinstance(name, str))
