"""How well a caption fits the part of an image that it fits worst.

A backdoor's patch, once learned, fits its caption loudly wherever it is stamped; the rest of the image still does not. A sound
caption fits most of its image. Our reconstruction of what "fine-grained" may mean for telling pairs apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.defenses.otcclip.coupling import plan
from poisonbench.defenses.otcclip.rings import ALL, Rows, met
from poisonbench.defenses.otcclip.transport import Backend
from poisonbench.towers import Features


def worst_ring(
    image: Features,
    text: Features,
    shifts: Sequence[int],
    share: float,
    eps: float,
    iterations: int,
    backend: Backend,
    at: Rows = ALL,
) -> tuple[Tensor, Tensor]:
    """Fits of image i with caption i + shift over the worst fitting ``share`` of its visual tokens: two (b, len(shifts)).

    Where ``at`` is given, the images are those of k rows of the batch only, and the fits two (k, len(shifts)).

    The first is the mean cosine of those tokens with the caption's embedding, the second their mean transported similarity.
    """
    visual, real = image.tokens.float(), image.mask
    coarse, fine = [], []
    for other in met(text, shifts, at):
        cost = 1 - visual @ other.tokens.float().transpose(-1, -2)
        moved = plan(cost, real, other.mask, eps, iterations, backend) * real.sum(dim=1)[:, None, None]
        fine.append(worst((moved * (1 - cost)).sum(dim=-1), real, share))
        near = (visual @ other.embedding.float().unsqueeze(-1)).squeeze(-1)
        coarse.append(worst(near, real, share))
    return torch.stack(coarse, dim=1), torch.stack(fine, dim=1)


def worst(fits: Tensor, mask: Tensor, share: float) -> Tensor:
    """Mean of the smallest ``share`` (at least one) of the real entries of every row: (b, m), bool (b, m) to (b,)."""
    sorted_fits = fits.masked_fill(~mask, torch.inf).sort(dim=-1).values
    count = (share * mask.sum(dim=-1, keepdim=True)).ceil().clamp_min(1)
    kept = torch.arange(fits.shape[-1], device=fits.device) < count
    return sorted_fits.masked_fill(~kept, 0).sum(dim=-1) / count.squeeze(-1)


def even(features: Features) -> Tensor:
    """The direction of the mean of the real unit tokens, in which every region counts the same: (b, d)."""
    return F.normalize((features.tokens.float() * features.mask.unsqueeze(-1)).sum(dim=1), dim=1)
