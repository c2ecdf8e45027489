"""Ragged sets of tokens, each a discrete measure: unit vectors, and the mass that each of them carries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenSets:
    """Sets of tokens whose real tokens come first.

    Attributes:
        tokens: (s, t, d) unit vectors; what stands in the padding is never read.
        mass: (s, t), sums to one over the real tokens of every set and is zero on padding.
        length: int64 (s,), places up to the last real token.
    """

    tokens: Tensor
    mass: Tensor
    length: Tensor

    @classmethod
    def of(cls, tokens: Tensor, mask: Tensor | None = None, mass: Tensor | None = None) -> TokenSets:
        """Token sets from padded tensors.

        Args:
            tokens: (s, t, d) unit vectors of any float type; no gradient flows into a match.
            mask: (s, t) bool, which tokens are real; all of them if not given.
            mass: (s, t), how much the tokens weigh, at least 0; uniform over real tokens if not given.

        Raises:
            ValueError: if a set has no token of positive mass, a mass is negative, or mask or mass are not (s, t).
        """
        for name, part in (("mask", mask), ("mass", mass)):
            if part is not None and part.shape != tokens.shape[:2]:
                raise ValueError(f"the {name} is {tuple(part.shape)}, the tokens {tuple(tokens.shape)}")
        weights = (
            torch.ones(tokens.shape[:2], device=tokens.device) if mass is None else mass.detach().float()
        )
        weights = weights if mask is None else weights * mask
        total = weights.sum(dim=1, keepdim=True)
        if not (total > 0).all():
            raise ValueError("a token set without mass: give every set at least one real token")
        if (weights < 0).any():
            raise ValueError("a token has a negative mass")
        tokens, weights = _packed(tokens.detach(), weights / total)
        return cls(tokens, weights, (weights > 0).sum(dim=1))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> TokenSets:
        """Neighbouring sets, padded to the longest of them."""
        length = self.length[rows]
        longest = int(length.max())
        return TokenSets(self.tokens[rows, :longest], self.mass[rows, :longest], length)

    def at_rows(self, rows: Tensor) -> TokenSets:
        """Any of the sets, by their numbers: int64; padded to the longest of them."""
        length = self.length[rows]
        longest = int(length.max())
        tokens, mass = (part[:, :longest].index_select(0, rows) for part in (self.tokens, self.mass))
        return TokenSets(tokens, mass, length)

    def tokens_repeated(self) -> Tensor:
        """The tokens with each set's first one in its padding, where it changes no maximum over the set: (s, t, d)."""
        place = torch.arange(self.tokens.shape[1], device=self.length.device)
        return torch.where((place < self.length[:, None])[..., None], self.tokens, self.tokens[:, :1])


def _packed(tokens: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens of positive mass first, in their order."""
    real = mass > 0
    if (real[:, 1:] <= real[:, :-1]).all():
        return tokens, mass
    order = real.float().argsort(dim=1, descending=True, stable=True)
    return tokens.gather(1, order[..., None].expand_as(tokens)), mass.gather(1, order)
