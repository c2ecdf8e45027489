"""No attack: the clean twin of every poisoned cell."""

from __future__ import annotations

import numpy as np

from poisonbench.attack import Attack, AttackCard, Probe
from poisonbench.manifest import Manifest
from poisonbench.pairs import Pairs
from poisonbench.tasks import Assets


class NoAttack(Attack):
    """The training pairs as they are; shows what a defence costs when there is nothing to defend against."""

    card = AttackCard(title="no attack", paper="-", year=2026, edits=())

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        """An empty manifest."""
        return Manifest()

    def probe(self, manifest: Manifest, assets: Assets, rng: np.random.Generator) -> Probe | None:
        """No goal, so nothing to probe."""
        return None
