"""The lab: everything a defence is given, and nothing else.

No manifest, no attack name, no test set. What a card does not declare in ``sees`` is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from poisonbench.defense import DefenseCard, Objective, Sight
from poisonbench.errors import UserError
from poisonbench.loader import Loader
from poisonbench.pairs import Pairs, Rows
from poisonbench.progress import Progress
from poisonbench.randomness import Key, numpy_rng, torch_rng
from poisonbench.slots import Checkpoints
from poisonbench.tier import Recipe
from poisonbench.tokens import Tokenizer
from poisonbench.towers import Towers


@dataclass(frozen=True)
class Lab:
    """A defence's workplace for one cell.

    Attributes:
        pairs: the (poisoned) training pairs.
        validation: clean pairs on which a defence may tune itself; never trained on.
        recipe: how the tier trains.
        tokenizer: captions to ids.
        synonyms: word to synonyms, for text augmentation.
        seed: of the cell; use ``rng`` instead of seeding by hand.
        device: "cpu" or "cuda".
        card: the defence's card.
        fresh: makes newly initialised towers (argument: a key for the seed).
        progress: where to report.
        checkpoints: where unfinished work is kept; ``train`` uses them by itself.
        optimizer_state: the optimiser's moments of the undefended model that a repair starts from.
    """

    pairs: Pairs
    validation: Pairs
    recipe: Recipe
    tokenizer: Tokenizer
    synonyms: Mapping[str, Sequence[str]]
    seed: int
    device: str
    card: DefenseCard
    fresh: Callable[[Key], Towers]
    progress: Progress = field(default_factory=Progress)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    optimizer_state: Mapping[str, Tensor] = field(default_factory=dict)
    _clean: Pairs | None = None
    _undefended: Callable[[Towers], object] | None = None
    _classes: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    @property
    def clean(self) -> Pairs:
        """The clean split. Needs "clean" in the card's ``sees``."""
        self._must_declare("clean")
        if self._clean is None or not len(self._clean):
            raise UserError(
                "this defence uses clean pairs, and none are set apart; give more pairs or a larger share (--set data.clean=0.2)"
            )
        return self._clean

    @property
    def classes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Class names and templates of the headline task. Needs "classes" in the card's ``sees``."""
        self._must_declare("classes")
        if self._classes is None:
            raise ValueError("the data has no classes")
        return self._classes

    def undefended(self) -> Towers:
        """A copy of the undefended model: plain CLIP, trained on all (poisoned) pairs by the tier's recipe.

        It is trained once for all defences that need it, and its training counts as the cost of each. Needs "undefended" in
        the card's ``sees``.
        """
        self._must_declare("undefended")
        if self._undefended is None:
            raise ValueError("there is no undefended model")
        towers = self.fresh("model")
        self._undefended(towers)
        return towers

    def rng(self, purpose: str, *keys: Key) -> torch.Generator:
        """A CPU generator for one purpose of this defence."""
        return torch_rng(self.seed, "defense", purpose, *keys)

    def numpy_rng(self, purpose: str, *keys: Key) -> np.random.Generator:
        """A NumPy generator for one purpose of this defence."""
        return numpy_rng(self.seed, "defense", purpose, *keys)

    def loader(self, pairs: Pairs | None = None, batch: int | None = None) -> Loader:
        """Batches of ``pairs`` (default: the training pairs), of ``batch`` rows (default: the recipe's)."""
        return Loader(
            self.pairs if pairs is None else pairs,
            self.tokenizer,
            self.synonyms,
            batch or self.recipe.batch,
            self.seed,
        )

    def train(
        self,
        objective: Objective,
        pairs: Pairs | None = None,
        recipe: Recipe | None = None,
        start: Towers | None = None,
    ) -> Towers:
        """Train with the suite's one loop, for defences that need a model of their own; its time counts as the defence's cost.

        A resumed run finds its training again by the order of these calls.
        """
        from poisonbench.training import fit

        towers = start or self.fresh("defense")
        slot = self.checkpoints.following()
        fit(
            towers, objective, self.loader(pairs), recipe or self.recipe, self.progress, checkpoint=slot,
            called="the defence's own model",
        )  # fmt: skip
        return towers

    @torch.inference_mode()
    def embed_images(
        self, towers: Towers, pairs: Pairs, rows: Rows | None = None, batch: int = 512
    ) -> Tensor:
        """Global image embeddings (n, d) of unaugmented images, on the CPU."""
        rows = np.arange(len(pairs)) if rows is None else rows
        towers.eval()
        parts = [
            towers.image(pairs.images.fetch(rows[at : at + batch])).embedding.cpu()
            for at in range(0, len(rows), batch)
        ]
        return torch.cat(parts)

    @torch.inference_mode()
    def embed_captions(self, towers: Towers, captions: Sequence[str], batch: int = 512) -> Tensor:
        """Global text embeddings (n, d), on the CPU."""
        towers.eval()
        parts = [
            towers.text(self.tokenizer(captions[at : at + batch])).embedding.cpu()
            for at in range(0, len(captions), batch)
        ]
        return torch.cat(parts)

    def on(self, pairs: Pairs) -> Lab:
        """The same lab over other training pairs (after curation)."""
        return replace(self, pairs=pairs)

    def during(self, moment: str) -> Lab:
        """The same lab for one moment of the defence, whose trainings have checkpoints of their own."""
        return replace(self, checkpoints=self.checkpoints.within(moment))

    def _must_declare(self, sight: Sight) -> None:
        if sight not in self.card.sees:
            raise PermissionError(f"this defence uses '{sight}' but its card does not declare it in `sees`")
