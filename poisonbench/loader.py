"""Batches of augmented images and tokenised captions, each a function of (seed, epoch, step) alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench.augment.captions import eda
from poisonbench.augment.images import augment
from poisonbench.defense import ImageAugment, TextAugment
from poisonbench.pairs import Pairs, Rows
from poisonbench.randomness import numpy_rng, torch_rng
from poisonbench.tokens import Tokenizer


@dataclass(frozen=True)
class CaptionTokens:
    """The token ids of every alternative caption of every row, as one table."""

    ids: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        captions: Sequence[tuple[str, ...]],
        tokenizer: Tokenizer,
        change: Callable[[str], str] | None = None,
    ) -> CaptionTokens:
        """Tokenise all captions, each changed first if ``change`` is given."""
        count = np.array([len(options) for options in captions], dtype=np.int64)
        texts = [change(text) if change else text for options in captions for text in options]
        ids = np.empty((len(texts), tokenizer.context), dtype=np.int32)
        for start in range(0, len(texts), 4096):
            ids[start : start + 4096] = tokenizer(texts[start : start + 4096]).numpy()
        return cls(ids, np.cumsum(count) - count, count)

    def of_rows(self, rows: Rows, choice: npt.NDArray[np.int64]) -> Tensor:
        """The ids (len(rows), context) of alternative ``choice`` modulo each row's number of alternatives."""
        at = self.first[rows] + choice % self.count[rows]
        return torch.from_numpy(self.ids[at].astype(np.int64))


@dataclass(frozen=True)
class Loader:
    """Draws rows, views and captions for one run.

    Attributes:
        pairs: what is trained on.
        tokenizer: captions to ids.
        synonyms: for EDA.
        batch: rows per step.
        seed: keys every draw.
    """

    pairs: Pairs
    tokenizer: Tokenizer
    synonyms: Mapping[str, Sequence[str]]
    batch: int
    seed: int

    def order(self, rows: Rows, epoch: int, stage: int, drop_last: bool) -> list[Rows]:
        """The rows of every step of pass ``stage`` of ``epoch``, shuffled; too few rows for a batch make one short batch."""
        shuffled = numpy_rng(self.seed, "order", epoch, stage).permutation(rows)
        steps = [shuffled[at : at + self.batch] for at in range(0, len(shuffled), self.batch)]
        return steps[:-1] if drop_last and len(steps) > 1 and len(steps[-1]) < self.batch else steps

    def images(self, rows: Rows, policy: ImageAugment, key: tuple[int | str, ...]) -> Tensor:
        """One augmented view of the rows' images, float (b, 3, side, side)."""
        return augment(self.pairs.images.fetch(rows), policy, torch_rng(self.seed, "view", *key))

    def tokens(self, rows: Rows, policy: TextAugment, epoch: int, view: int = 0) -> Tensor:
        """The caption ids that ``rows`` are trained on in ``epoch``: one alternative per row, epoch and view, (b, context)."""
        table = self._plain if policy == "none" else self._augmented[view % 2]
        return table.of_rows(rows, self._choice(epoch, view)[rows])

    def _choice(self, epoch: int, view: int) -> npt.NDArray[np.int64]:
        return numpy_rng(self.seed, "caption", epoch, view).integers(0, 1 << 31, len(self.pairs))

    @cached_property
    def _plain(self) -> CaptionTokens:
        return CaptionTokens.of(self.pairs.captions, self.tokenizer)

    @cached_property
    def _augmented(self) -> tuple[CaptionTokens, CaptionTokens]:
        first, second = (self._eda_table(view) for view in (0, 1))
        return first, second

    def _eda_table(self, view: int) -> CaptionTokens:
        rng = numpy_rng(self.seed, "eda", view)
        return CaptionTokens.of(
            self.pairs.captions, self.tokenizer, lambda text: eda(text, self.synonyms, rng)
        )
