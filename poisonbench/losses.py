"""Contrastive losses on unit vectors, in fp32 whatever the towers' precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rows_cross_entropy(logits: Tensor) -> Tensor:
    """Mean over rows i of -log softmax(logits_i)[i], for square logits (b, b)."""
    return F.cross_entropy(logits.float(), torch.arange(len(logits), device=logits.device))


def clip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric InfoNCE (Radford et al., 2021, figure 3).

    Args:
        image: (b, d) unit vectors.
        text: (b, d) unit vectors; row i is the partner of image i.
        scale: the exponentiated logit scale.
    """
    logits = scale * image.float() @ text.float().T
    return (rows_cross_entropy(logits) + rows_cross_entropy(logits.T)) / 2
