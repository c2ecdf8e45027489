"""A patch backdoor on image-caption pairs (BadNets, Gu et al. 2017; on CLIP: Carlini and Terzis, ICLR 2022, section 3)."""

from __future__ import annotations

from typing import ClassVar

from poisonbench.attack import AttackCard
from poisonbench.backdoor import CaptionedConfig, PatchBackdoor, PatchConfig
from poisonbench.settings import Presets


class BadNet(PatchBackdoor):
    """A small patch is stamped on images of any class, which are captioned as the target class.

    Rows whose captions name the target are never chosen, so every poison is a wrong pair. The new captions are drawn from
    the corpus' own captions that name the target, or from the task's templates where the corpus has too few. The patch lies
    inside every deterministic evaluation crop. The default is one checkerboard in one place; ``noise`` and ``stripes`` redraw
    pattern and place for every image, in training and at test, as CleanCLIP and PAR do.
    """

    card = AttackCard(
        title="BadNet patch",
        paper="arXiv:2106.09667",
        year=2022,
        edits=("image", "caption"),
        notes="`redrawn` follows CleanCLIP's released code in spirit (a fresh random patch per image), on our 5 x 5 grid.",
    )

    presets: ClassVar[Presets] = {
        "noise": {"pattern": "noise", "mode": "redrawn", "position": "random"},
        "stripes": {"pattern": "stripes", "mode": "redrawn", "position": "random"},
    }

    class Config(CaptionedConfig, PatchConfig):
        """Budget, target and trigger."""
