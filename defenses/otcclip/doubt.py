"""How doubtful a caption is by its kind: how often pairs with captions like it do not fit.

The poisons of one attack share what their captions say, and most of them do not fit their images. Among the captions nearest
to a poison's, misfits are therefore more frequent than elsewhere, whatever the trigger looks like and before the model knows
much. The evidence for a pair is weighed by that: where misfits are frequent it must fit better to be believed, where they are
rare less well. That is hypothesis weighting by a covariate (Ignatiadis et al., Nature Methods 2016); the share of pairs that
only chance holds together is Storey's estimate (JRSS B 2002), twice the share of pairs that fit worse than the median decoy.
No trigger, target or rate is needed. Our reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.defenses.otcclip.parts import Part, kept, restore
from poisonbench.defenses.otcclip.running import Running
from poisonbench.pool import Pool

PAIRS = 16384
"""Recent pairs that are remembered."""
NEAREST = 256
"""Captions that make a kind."""
FEWEST = 4 * NEAREST
"""With fewer pairs than this all captions are of one kind."""
EXTREME = 0.02
"""Shares of misfits nearer to 0 or 1 than this are not believed."""
RELIEF = 0.5
"""Pairs of kinds that are not doubtful are believed so much more readily, and no more."""


class Doubt:
    """How much more often the captions of a kind do not fit than captions do, kept over the epochs.

    Attributes:
        pairs: pool of ``text`` (d,), ``misfit`` and ``picture`` of recent pairs.
        excess: of every row, the logarithm of the odds of misfits in its kind over those in the pool, a running mean.
    """

    def __init__(self, groups: Tensor, memory: float, power: float) -> None:
        """The odds count to the ``power``; ``groups`` (n,) numbers the picture of every row, see ``Running`` for ``memory``."""
        self.pairs, self.excess = Pool(PAIRS), Running(len(groups), memory)
        self._groups, self._power = groups, power

    def weigh(self, rows: Tensor, text: Tensor, misfit: Tensor, tolerance: float) -> Tensor:
        """What the chance of every pair of a batch is multiplied with, above 1 for doubtful kinds: (b,), on the CPU.

        Args:
            rows: int64 (b,).
            text: (b, d) embeddings of their captions, unit vectors.
            misfit: bool (b,): which fit no better than the median decoy; they count for later batches.
            tolerance: excess up to which a kind is not doubtful.
        """
        picture = self._groups[rows].to(text.device)
        doubt = torch.ones(len(rows))
        if len(self.pairs) >= FEWEST:
            excess = self.excess.update(rows, self._excess(text.float(), picture).cpu())
            doubt = (self._power * (excess - tolerance)).exp().clamp_min(RELIEF)
        self.pairs.push(text=text, misfit=misfit.float().to(text.device), picture=picture)
        return doubt

    def _excess(self, text: Tensor, picture: Tensor) -> Tensor:
        known, misfit = self.pairs["text"].float(), self.pairs["misfit"]
        mean = known.mean(dim=0)
        likeness = F.normalize(text - mean, dim=1) @ F.normalize(known - mean, dim=1).T
        others = likeness.masked_fill(picture[:, None] == self.pairs["picture"], -torch.inf)
        kind = others.topk(NEAREST, dim=1).indices
        return _log_odds(misfit[kind].mean(dim=1)) - _log_odds(misfit.mean())

    def state_dict(self) -> dict[str, Tensor]:
        """Pool and running mean as tensors."""
        return kept(self._parts())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        restore(self._parts(), state)

    def _parts(self) -> dict[str, Part]:
        return {"pairs": self.pairs, "excess": self.excess}


def _log_odds(misfits: Tensor) -> Tensor:
    """Of pairs that only chance holds together, half of which fit worse than the median decoy."""
    return (2 * misfits).clamp(EXTREME, 1 - EXTREME).logit()
