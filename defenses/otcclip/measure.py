"""How well the captions of a batch fit its images, global and fine-grained, on a ring and standardised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.regions import worst_ring
from poisonbench.defenses.otcclip.rings import ALL, Rows, cosine_ring, transport_ring
from poisonbench.defenses.otcclip.separation import standardised, standardised_anew
from poisonbench.towers import Features

Fits = tuple[Tensor, Tensor]
"""Global fits and fine-grained ones, each (k, 1 + r): column 0 holds the own captions, the others hold the references."""


@dataclass(frozen=True)
class Measure:
    """What the test measures in one batch.

    Attributes:
        config: which regions, plans and mixture.
        captions: of the batch's b rows.
        shifts: the ring offsets of the references, 0 first.
    """

    config: OTCCLIPConfig
    captions: Features
    shifts: list[int]

    def fits(self, image: Features, at: Rows = ALL) -> Fits:
        """Fits of all images, or of those of the rows ``at``, with the captions that they meet."""
        config, captions, shifts = self.config, self.captions, self.shifts
        how = (config.eps, config.iterations, config.backend)
        if config.regions < 1:
            return worst_ring(image, captions, shifts, config.regions, *how, at)
        coarse = cosine_ring(image.embedding, captions.embedding, shifts, at)
        return coarse, transport_ring(image, captions, shifts, *how, at=at)

    def evidence(self, fits: Fits, others: Iterable[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """For the own pairs and for the decoys, (b,) twice, on the CPU; ``others`` are fits that count a half each."""
        judged = [(standardised(fit, self.shifts), share) for fit, share in self._shares(fits)]
        judged += [(standardised(fit, self.shifts), 0.5) for fit in others]
        own, decoy = (sum(share * pair[side].float() for pair, share in judged) for side in (0, 1))
        return own.cpu(), decoy.cpu()

    def evidence_anew(self, fits: Fits, plain: Fits, at: Tensor) -> Tensor:
        """For the own pairs of the rows ``at``, (k,), whose images were looked at anew, after a ``plain`` look at all."""
        pairs = zip(self._shares(fits), plain, strict=True)
        judged = [share * standardised_anew(fit, all_, self.shifts, at) for (fit, share), all_ in pairs]
        return torch.stack(judged).sum(dim=0).float().cpu()

    def _shares(self, fits: Fits) -> tuple[tuple[Tensor, float], tuple[Tensor, float]]:
        coarse, fine = fits
        return (coarse, self.config.beta), (fine, 1 - self.config.beta)
