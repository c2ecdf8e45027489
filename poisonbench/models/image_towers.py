"""Small convolutional image towers, assembled from timm's bring-your-own-blocks network.

Eight pixels of the input become one token, so a 32-pixel image gives 16 tokens.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.byobnet import ByobNet, ByoBlockCfg, ByoModelCfg


def _tower(widths: tuple[int, ...], depths: tuple[int, ...], **kwargs: Any) -> ByobNet:
    blocks = tuple(
        ByoBlockCfg(type="basic", d=depth, c=width, s=1 if stage == 0 else 2, gs=0, br=1.0)
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True))
    )
    cfg = ByoModelCfg(blocks=blocks, stem_chs=widths[0], stem_type="3x3", stem_pool=None, downsample="conv1x1")
    tower = ByobNet(cfg, **{key: kwargs[key] for key in ("num_classes", "global_pool") if key in kwargs})
    tower.default_cfg = {"pool_size": (4, 4), "input_size": (3, 32, 32)}
    return tower


@register_model
def poisonbench_conv_s(pretrained: bool = False, **kwargs: Any) -> ByobNet:
    """Three stages of basic residual blocks at strides 2, 4 and 8 (the tower of the ``clipart`` tier)."""
    return _tower((32, 96, 192), (1, 1, 1), **kwargs)


@register_model
def poisonbench_conv_xs(pretrained: bool = False, **kwargs: Any) -> ByobNet:
    """The same in a quarter of the width (the tower of the ``smoke`` tier)."""
    return _tower((16, 32, 64), (1, 1, 1), **kwargs)
