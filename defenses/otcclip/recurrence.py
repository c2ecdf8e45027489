"""Images with a region that recurs in other, ill-fitting pairs: the same region in different pictures.

Poisons of one attack share a trigger, and most of their captions do not fit: among pairs that fit no better than a typical
mismatched one, poisons are many times as frequent as elsewhere. In a pool of the visual tokens of such images the trigger is
therefore a crowd, in a pool of sound images' tokens it is rare, and the difference gives away every image that carries it and
where, even where the model believes its caption or ignores the trigger. Alike regions of pictures that are alike as a whole
do not count. No caption, trigger or rate is needed. Our reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from poisonbench.defenses.otcclip.bounds import fast_type
from poisonbench.defenses.otcclip.parts import Part, kept, restore
from poisonbench.defenses.otcclip.running import Recent, Running
from poisonbench.pool import Pool
from poisonbench.towers import Features

IMAGES = 256
"""Images in each of the two pools."""
NEAREST = 16
"""Tokens of a pool that make a crowd."""
TOGETHER = 64
"""Images whose products with a pool are made at a time."""


class Recurrence:
    """How much the regions of every image recur among ill-fitting pairs, kept over the epochs.

    Attributes:
        scores: of every row, a running mean.
        unfit: pool of ``tokens`` (m, d) and ``picture`` of pairs that fit badly.
        sound: the same of as many sound pairs, of the same age.
    """

    def __init__(self, groups: Tensor, memory: float, share: float) -> None:
        """What recurs more than all but a ``share`` of the sound rows is found; ``groups`` (n,) numbers the pictures."""
        self.scores, self.unfit, self.sound = Running(len(groups), memory), Pool(IMAGES), Pool(IMAGES)
        self._groups, self._share, self._recent = groups, share, Recent()

    def recurring(self, rows: Tensor, looks: Sequence[Features], sound: Tensor) -> Tensor:
        """Which of b images carry what recurs, in any look at them.

        Args:
            rows: int64 (b,).
            looks: features of their images.
            sound: bool (b,), on the CPU: whose pairs fit; they set the threshold.

        Returns:
            bool (b,), on the CPU.
        """
        if not self._ready():
            return torch.zeros(len(rows), dtype=torch.bool)
        now = torch.stack([self.by_place(rows, look).amax(dim=1) for look in looks]).amax(dim=0).cpu()
        score = self.scores.update(rows, now)
        self._recent.add(score[sound])
        return score > self._recent.above(self._share)

    def place(self, rows: Tensor, look: Features) -> Tensor:
        """The place of each of b images that recurs most: int64 (b,)."""
        return self.by_place(rows, look).argmax(dim=1)

    def add(self, rows: Tensor, look: Features, unfit: Tensor, sound: Tensor) -> None:
        """Take in the ill-fitting ones of b images, bool (b,), and as many of the sound ones."""
        bad, good = unfit.nonzero().squeeze(1), sound.nonzero().squeeze(1)
        count = min(len(bad), len(good))
        for pool, chosen in ((self.unfit, bad[:count]), (self.sound, good[:count])):
            if count:
                here = chosen.to(look.tokens.device)
                pool.push(tokens=_real(look[here]), picture=self._groups[rows[chosen]].to(here.device))

    def _ready(self) -> bool:
        return len(self.unfit) >= NEAREST

    def by_place(self, rows: Tensor, look: Features) -> Tensor:
        """How much more crowded the ill-fitting pool is around every token than the sound one: (b, m)."""
        own, tokens = self._groups[rows].to(look.tokens.device), _real(look)
        more = crowd(self.unfit, own, tokens) - crowd(self.sound, own, tokens)
        return more.masked_fill(~look.mask, -torch.inf)

    def state_dict(self) -> dict[str, Tensor]:
        """Scores, pools and threshold as tensors."""
        return kept(self._parts())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        restore(self._parts(), state)

    def _parts(self) -> dict[str, Part]:
        return {"scores": self.scores, "unfit": self.unfit, "sound": self.sound, "recent": self._recent}


def _real(look: Features) -> Tensor:
    """The tokens in the type of fast products, zeros where there are none."""
    return (look.tokens * look.mask.unsqueeze(-1)).to(fast_type(look.tokens.device))


def crowd(pool: Pool, own: Tensor, tokens: Tensor) -> Tensor:
    """How crowded a pool is around every token: (b, m).

    The mean over the nearest tokens of other pictures of the cosine beyond the mean cosine of all tokens of the two pictures.

    Args:
        pool: of ``tokens`` (m', d) and ``picture``.
        own: int64 (b,), the numbers of the pictures.
        tokens: (b, m, d), unit vectors or zeros.
    """
    others = pool["tokens"]
    flat, means = others.flatten(0, 1).T, others.mean(dim=1).T
    found = []
    for some, group in zip(tokens.split(TOGETHER), own.split(TOGETHER), strict=True):
        near = (some.flatten(0, 1) @ flat).view(*some.shape[:2], *others.shape[:2])
        excluded = (group[:, None] == pool["picture"]).to(near.dtype) * 4
        beyond = near - (some.mean(dim=1) @ means + excluded)[:, None, :, None]
        found.append(beyond.flatten(2).topk(NEAREST, dim=2).values.float().mean(dim=2))
    return torch.cat(found)
