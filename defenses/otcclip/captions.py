"""The pool of recent captions, and which of them suit an image best.

The pool holds what a caption is (its ids, whose it was) and what the text tower made of it (embedding and tokens). The search is
exact over the whole pool (matcher.match); a shortlist by global cosine is an option, which tells how often it misses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.defenses.otcclip.matcher import Transport, distances, match
from poisonbench.defenses.otcclip.parts import kept, restore
from poisonbench.defenses.otcclip.scales import Running
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.pool import Pool
from poisonbench.towers import Features

HELD = 32
"""Text tokens of a caption that the pool keeps: most web captions are shorter, and all 77 would take twice the memory."""

BLIND = 16
"""Captions on which the spread of the scores is measured."""

AUDITED = 2
"""Images of a batch for which the whole pool is searched beside a shortlist, to count its misses."""


@dataclass(frozen=True)
class Found:
    """The captions that suit b images best, best first.

    Attributes:
        ids: int64 (b, k, l) of the tokenizer.
        row: int64 (b, k), whose caption it was.
        embedding: (b, k, d) as the pool has it.
        score: (b, k) mixed scores.
    """

    ids: Tensor
    row: Tensor
    embedding: Tensor
    score: Tensor

    def mean(self) -> Tensor:
        """The mean of the captions' embeddings, weighted by the softmax of their scores: unit vectors (b, d)."""
        share = self.score.softmax(dim=1).unsqueeze(-1)
        return F.normalize((share * self.embedding.float()).sum(dim=1), dim=1)


class Captions:
    """A pool of captions that images are matched with.

    Attributes:
        pool: entries with ``embedding``, ``tokens``, ``mask``, ``ids`` and ``row``.
        scales: spreads of cosine and transport similarity in earlier batches, by which a score mixes them.
    """

    def __init__(self, capacity: int, beta: float, how: Transport, shortlist: int) -> None:
        """``shortlist`` captions are considered per image, those of the largest cosine; all of them if it is 0."""
        self.pool, self.scales = Pool(capacity), Running()
        self._beta, self._how, self._shortlist = beta, how, shortlist
        self._misses = torch.zeros(2, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.pool)

    def add(self, text: Features, ids: Tensor, rows: Tensor) -> None:
        """Take in captions: features of c captions, their ids (c, l) and rows (c,)."""
        device = text.mask.device
        self.pool.push(
            embedding=text.embedding, tokens=text.tokens[:, :HELD].to(torch.bfloat16), mask=text.mask[:, :HELD],
            ids=ids.to(device), row=rows.to(device),
        )  # fmt: skip

    @torch.no_grad()
    def best(self, image: Features, k: int = 1) -> Found:
        """The k captions of the pool (all of them, if it has fewer) that suit each of b images best."""
        cosine = image.embedding.float() @ self.pool["embedding"].float().T
        images = TokenSets.of(image.tokens, image.mask)
        captions = TokenSets.of(self.pool["tokens"], self.pool["mask"])
        self._look(images, captions, cosine)
        k = min(k, len(self.pool))
        found = match(
            images, captions, k, cosine, beta=self._beta, scales=self.scales.now,
            top_k=max(self._shortlist, k) if self._shortlist else None, audit=AUDITED, how=self._how,
        )  # fmt: skip
        if found.missed is not None:
            self._misses += torch.tensor([found.missed, 1.0], dtype=torch.float64)
        ids, row, embedding = (self.pool[name][found.index] for name in ("ids", "row", "embedding"))
        return Found(ids, row, embedding, found.score)

    def begin(self) -> None:
        """Count the shortlist's misses anew."""
        self._misses = torch.zeros_like(self._misses)

    @property
    def missed(self) -> float | None:
        """How often the pool had a better caption than the shortlist, mean over batches; None if no shortlist was asked."""
        share, batches = self._misses.tolist()
        return share / batches if batches else None

    def _look(self, images: TokenSets, captions: TokenSets, cosine: Tensor) -> None:
        """Measure both terms of the score on captions spread evenly over the pool, blind to what suits whom."""
        some = torch.arange(0, len(captions), max(1, len(captions) // BLIND), device=cosine.device)
        costs = distances(images, captions.at_rows(some), self._how)
        self.scales.look(cosine[:, some], 1 - costs)

    def state_dict(self) -> dict[str, Tensor]:
        """Pool, scales and the count of misses as tensors."""
        return {**kept({"pool": self.pool, "scales": self.scales}), "misses": self._misses.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        restore({"pool": self.pool, "scales": self.scales}, state)
        self._misses = state["misses"].clone()
