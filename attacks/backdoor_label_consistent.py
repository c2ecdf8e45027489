"""A patch on rightly captioned images (Label-consistent; Turner et al., 2019; on CLIP: Bansal et al., ICCV 2023)."""

from __future__ import annotations

import numpy as np

from poisonbench.attack import AttackCard
from poisonbench.backdoor import BackdoorConfig, PatchBackdoor, PatchConfig
from poisonbench.errors import UserError
from poisonbench.pairs import Pairs, Rows
from poisonbench.tasks import Assets


class LabelConsistent(PatchBackdoor):
    """A patch is stamped on images whose captions name the target class anyway; the captions stay as they are.

    No pair is wrong, so nothing in it can be found by comparing image and caption. The budget ends where the rows that name
    the target end: a higher rate takes all of them.
    """

    card = AttackCard(
        title="label-consistent patch",
        paper="arXiv:1912.02771",
        year=2019,
        edits=("image",),
        notes=(
            "As in the CLIP literature without the original's adversarial or generated images. Target rows are found by whole "
            "words, the released codes take substrings."
        ),
    )

    class Config(BackdoorConfig, PatchConfig):
        """Budget, target and trigger."""

    def victims(self, pairs: Pairs, words: tuple[str, ...], budget: int, rng: np.random.Generator) -> Rows:
        """Up to ``budget`` of the rows that name the target, ascending.

        Raises:
            UserError: when there is none.
        """
        named = pairs.rows_naming(words)
        if not len(named):
            raise UserError(
                f"attack '{self.name}': no training caption names '{self.config.target}'; take another target"
            )
        return np.sort(rng.choice(named, min(budget, len(named)), replace=False))

    def captions(
        self, count: int, pairs: Pairs, assets: Assets, rng: np.random.Generator
    ) -> list[tuple[str, ...] | None]:
        """Every row keeps its own."""
        return [None] * count
