"""Contrastive losses on unit vectors, in fp32 whatever the towers' precision."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from open_clip.loss import ClipLoss


def rows_cross_entropy(logits: Tensor) -> Tensor:
    """Mean over rows i of -log softmax(logits_i)[i], for square logits (b, b)."""
    return F.cross_entropy(logits.float(), torch.arange(len(logits), device=logits.device))


def clip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric InfoNCE (Radford et al., 2021, figure 3), as open_clip computes it.

    Args:
        image: (b, d) unit vectors.
        text: (b, d) unit vectors; row i is the partner of image i.
        scale: the exponentiated logit scale.
    """
    return cast(Tensor, _open_clip_loss()(image.float(), text.float(), scale))


@cache
def _open_clip_loss() -> ClipLoss:
    from open_clip.loss import ClipLoss  # takes seconds to import; contracts must not wait for it

    return ClipLoss()
