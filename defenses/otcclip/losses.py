"""OT objectives for fine-grained alignment, between and within modalities (our reconstruction; specs name them, not their form).

The contrastive form ranks a pair's transport similarity above those of other rows of the batch, on a ring of offsets: row i
meets the captions of rows i + shift. The positive form only pulls pairs together (as in UNITER's word-region alignment).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["contrastive", "positive"]


def aligned(
    fit: Tensor,
    shifts: Sequence[int],
    weights: Tensor,
    caption: Tensor,
    scale: Tensor,
    form: Form,
    bystanders: bool = False,
) -> Tensor:
    """The OT objective of one pairing of views or modalities.

    Args:
        fit: (b, 1 + r) transport similarities on the ring; column 0 holds the pairs.
        shifts: the ring offsets of the columns.
        weights: (b,) of the pairs; captions of weight 0 are no negatives either.
        caption: (b,) which caption each row was given; rows that share one are no negatives of each other.
        scale: the exponentiated logit scale.
        form: contrastive (both directions) or positive pairs only.
        bystanders: whether images (the first side) of weight 0 are negatives of other rows' captions all the same.
    """
    if form == "positive":
        return weighted(1 - fit[:, 0], weights)
    mirrored = torch.stack([fit[:, k].roll(shift, 0) for k, shift in enumerate(shifts)], dim=1)
    first = torch.zeros(len(fit), dtype=torch.long, device=fit.device)
    total = fit.new_zeros(())
    for side, sign, absent in ((fit, -1, weights == 0), (mirrored, 1, (weights == 0) & (not bystanders))):
        no_negative = torch.stack([_useless(absent, caption, sign * shift) for shift in shifts], dim=1)
        no_negative[:, 0] = False
        logits = (scale * side).masked_fill(no_negative, -1e4)
        total = total + weighted(F.cross_entropy(logits, first, reduction="none"), weights) / 2
    return total


def _useless(absent: Tensor, caption: Tensor, shift: int) -> Tensor:
    return absent.roll(shift, 0) | (caption.roll(shift, 0) == caption)


def weighted_clip(
    image: Tensor, text: Tensor, scale: Tensor, weights: Tensor, caption: Tensor, bystanders: bool = False
) -> Tensor:
    """CLIP's loss with a weight per row, in which rows that share a caption are no negatives of each other.

    Args:
        image: (b, d) unit vectors.
        text: (b, d) unit vectors, row i the partner of image i.
        scale: the exponentiated logit scale.
        weights: (b,); captions of weight 0 are no negatives either.
        caption: (b,) which caption each row was given.
        bystanders: whether images of weight 0 are negatives of other rows' captions all the same.
    """
    logits = scale * image @ text.T
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    same, absent = caption[:, None] == caption[None, :], (weights == 0)[None, :]
    to_text = logits.masked_fill((same | absent) & ~own, -1e4)
    to_image = logits.T.masked_fill((same | (absent & (not bystanders))) & ~own, -1e4)
    labels = torch.arange(len(logits), device=logits.device)
    both = F.cross_entropy(to_text, labels, reduction="none") + F.cross_entropy(
        to_image, labels, reduction="none"
    )
    return weighted(both / 2, weights)


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of ``values`` under ``weights``; zero where all weights are zero."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)
