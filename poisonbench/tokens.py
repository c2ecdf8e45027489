"""Text to token ids: open_clip's tokenizer, with a table trimmed to the ids that occur.

The full table of 49,408 ids costs more parameters than the rest of a small model. A trimmed vocabulary keeps the ids that
occur in given texts; ids that were not seen share a few buckets, so that any caption can be encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

BUCKETS = 256
"""Table entries shared by the ids that a trimmed vocabulary has not seen."""


class Tokenizer:
    """Callable from texts to int64 ids (n, context), padded with 0; the end token has the largest id.

    Attributes:
        context: tokens per text, start and end token included; longer texts are cut and keep their end token.
        size: entries of the embedding table.
        end: the id of the end-of-text token.
    """

    def __init__(self, context: int, kept: Sequence[int] | None = None) -> None:
        """``kept`` are the open_clip ids that keep an entry of their own, or None for the full table."""
        self.context = context
        self._base = _open_clip_tokenizer()
        self._map = None if kept is None else self._trimmed(kept)
        self.end = int(self._base.eot_token_id if self._map is None else self._map[self._base.eot_token_id])
        self.size = self.end + 1

    @classmethod
    def trimmed_to(cls, texts: Iterable[str], context: int) -> Tokenizer:
        """A tokenizer that keeps the ids occurring in ``texts``."""
        kept: set[int] = set()
        for text in texts:
            kept.update(_encoded(text))
        return cls(context, sorted(kept))

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Encode one or several texts as int64 (n, context)."""
        several = [texts] if isinstance(texts, str) else texts
        rows = np.zeros((len(several), self.context), dtype=np.int64)
        for row, text in zip(rows, several, strict=True):
            ids = (self._base.sot_token_id, *_encoded(text))[: self.context - 1]
            row[: len(ids) + 1] = (*ids, self._base.eot_token_id)
        return torch.from_numpy(rows if self._map is None else self._map[rows])

    def _trimmed(self, kept: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        start, end, pad = self._base.sot_token_id, self._base.eot_token_id, 0
        own = sorted(set(kept) - {start, end, pad})
        table = 1 + np.arange(self._base.vocab_size, dtype=np.int64) % BUCKETS
        table[pad] = 0
        first = 1 + BUCKETS
        table[own] = np.arange(first, first + len(own))
        table[start], table[end] = first + len(own), first + len(own) + 1
        return table


@lru_cache(maxsize=1 << 18)
def _encoded(text: str) -> tuple[int, ...]:
    """open_clip's ids of ``text`` without start and end; remembered, since vocabulary and training read the same captions."""
    return tuple(_open_clip_tokenizer().encode(text))


@cache
def _open_clip_tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()
