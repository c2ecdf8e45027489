"""Small convolutional image towers, assembled from timm's bring-your-own-blocks network.

Eight pixels of the input become one token, so a 32-pixel image gives 16 tokens. Clip art is centred, so where a feature
is matters: every place has its own projection into the joint space, and the global embedding is the mean of the places.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import register_model
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from torch import Tensor, nn

PLACES = 16
"""Tokens of a 32-pixel image."""


class PlacedHead(nn.Module):
    """A linear projection of its own for every place of the feature grid, and their mean.

    Attributes:
        weight: (places, channels, d).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(PLACES, channels, width) * channels**-0.5)

    def tokens(self, grid: Tensor) -> Tensor:
        """A feature grid (b, channels, h, w) with h * w places as (b, places, d)."""
        places = grid.flatten(2).permute(2, 0, 1).contiguous()  # else the backward pass copies it, transposed
        return torch.bmm(places, self.weight.to(places.dtype)).transpose(0, 1)

    def forward(self, grid: Tensor, pre_logits: bool = False) -> Tensor:
        """The global embedding (b, d)."""
        return self.tokens(grid).mean(dim=1)


def _tower(stem: int, widths: tuple[int, ...], **kwargs: Any) -> ByobNet:
    strides = (1, 2, 2, 1)
    blocks = tuple(
        ByoBlockCfg(type="rep", d=1, c=width, s=stride, br=1.0)
        for width, stride in zip(widths, strides, strict=True)
    )
    cfg = ByoModelCfg(blocks=blocks, stem_chs=stem, stem_type="3x3", stem_pool=None)
    tower = ByobNet(cfg, num_classes=0, global_pool="")
    tower.head = PlacedHead(widths[-1], kwargs["num_classes"])
    tower.default_cfg = {"input_size": (3, 32, 32), "pool_size": (4, 4)}
    return tower


@register_model  # type: ignore[untyped-decorator]
def poisonbench_conv_s(pretrained: bool = False, **kwargs: Any) -> ByobNet:
    """RepVGG blocks of 64 to 512 channels at strides 2 to 8 (the tower of the ``clipart`` tier)."""
    return _tower(48, (64, 128, 256, 512), **kwargs)


@register_model  # type: ignore[untyped-decorator]
def poisonbench_conv_xs(pretrained: bool = False, **kwargs: Any) -> ByobNet:
    """The same in a quarter of the width (the tower of the ``smoke`` tier)."""
    return _tower(12, (16, 32, 64, 128), **kwargs)
