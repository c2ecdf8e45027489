"""Which pairs are sound: a test of every pair against captions that certainly are not its own.

A pair is suspicious when its caption fits its image no better than other images' captions do. The fit is standardised
against references (the captions and images of other rows of the batch), and the threshold is the level at which *decoys*,
pairs that we mismatched ourselves, would pass. A poison whose caption has nothing to do with its image passes as rarely as a
decoy, whatever the poison rate. A picture that comes in k copies with k captions has k chances, so its pairs are judged
together, at a k-th of the level. All of it is our reconstruction; no poison is needed to set the level.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from poisonbench.defenses.otcclip.parts import Part, kept, restore
from poisonbench.defenses.otcclip.running import Recent, Running


def standardised(fit: Tensor, shifts: list[int]) -> tuple[Tensor, Tensor]:
    """Standardised fits of the own pairs and of one decoy per row.

    Args:
        fit: (b, 1 + r): column k is the fit of image i with caption (i + shifts[k]) mod b; shifts[0] is 0.
        shifts: the ring offsets of the columns.

    Returns:
        Two (b,) tensors: how many standard deviations the own (the decoy) pair lies above the references, summed over
        both directions, image to captions and caption to images.
    """
    by_image, by_caption = fit[:, 1:], _by_caption(fit, shifts)
    own = _above(fit[:, 0], by_image) + _above(fit[:, 0], by_caption)
    # the decoy is column 1: image i with caption i + shifts[1], judged by the references that are left
    others = by_caption[:, 1:].roll(-shifts[1], 0)
    return own, _above(fit[:, 1], by_image[:, 1:]) + _above(fit[:, 1], others)


def standardised_anew(fit: Tensor, plain: Tensor, shifts: list[int], at: Tensor) -> Tensor:
    """Standardised fits of the own pairs in another look at some images, whose captions met the others' plain looks.

    Args:
        fit: (k, 1 + r) of the new looks.
        plain: (b, 1 + r) of all images of the batch.
        shifts: the ring offsets of the columns.
        at: int64 (k,), which rows of the batch were looked at anew.

    Returns:
        (k,), as the first of ``standardised``.
    """
    return _above(fit[:, 0], fit[:, 1:]) + _above(fit[:, 0], _by_caption(plain, shifts)[at])


def _by_caption(fit: Tensor, shifts: list[int]) -> Tensor:
    """The fits of caption i with the images that met it: (b, r)."""
    return torch.stack([fit[:, k].roll(shift, 0) for k, shift in enumerate(shifts) if k], dim=1)


def _above(value: Tensor, references: Tensor) -> Tensor:
    return (value - references.mean(dim=1)) / references.std(dim=1).clamp_min(1e-6)


def halves(images: Tensor, rng: torch.Generator) -> list[Tensor]:
    """Two opposite parts of every image (60% of the side; left and right or top and bottom), enlarged to the full size."""
    side = images.shape[-1]
    part, axis = max(1, round(0.6 * side)), -1 - int(torch.randint(2, (), generator=rng))
    pieces = (images.narrow(axis, 0, part), images.narrow(axis, side - part, part))
    return [F.interpolate(piece, size=(side, side), mode="bilinear", align_corners=False) for piece in pieces]


class Separation:
    """Evidence for the soundness of every row, kept over the epochs.

    Attributes:
        evidence: standardised fit of every row's own caption, a running mean.
        groups: int64 (n,) the picture of every row.
    """

    def __init__(self, groups: Tensor, memory: float) -> None:
        """``groups`` (n,) numbers the picture of every row, ``memory`` is how much of a row's earlier evidence is kept."""
        self.groups, self.evidence = groups, Running(len(groups), memory)
        self._size = torch.bincount(groups)
        self._rows_of = torch.argsort(groups, stable=True).split(self._size.tolist())
        self._decoys = Recent()

    def judge(self, rows: Tensor, own: Tensor, decoy: Tensor, level: Tensor | float) -> tuple[Tensor, Tensor]:
        """Weigh the evidence of a batch and say which pairs are sound, and which fit no better than a typical decoy.

        Args:
            rows: int64 (b,).
            own: (b,) standardised fit of the own pairs.
            decoy: (b,) standardised fit of mismatched pairs.
            level: share of decoys that may pass, one for all or (b,).

        Returns:
            Two bool (b,).
        """
        self.evidence.update(rows, own)
        # a decoy has no history of its own; averaging shrinks evidence, so its single look is a conservative stand-in
        self._decoys.add(decoy)
        groups = self.groups[rows]
        weight = self._pooled(groups)
        sound = weight > self._decoys.above(level / self._size[groups].float())
        return sound, weight <= self._decoys.values.median()

    def _pooled(self, groups: Tensor) -> Tensor:
        """Mean evidence over the rows of each picture that were looked at."""
        members = [self._rows_of[group] for group in groups.tolist()]
        return torch.stack([self.evidence.mean[rows[self.evidence.seen[rows]]].mean() for rows in members])

    def state_dict(self) -> dict[str, Tensor]:
        """Evidence and decoys as tensors."""
        return kept(self._parts())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        restore(self._parts(), state)

    def _parts(self) -> dict[str, Part]:
        return {"evidence": self.evidence, "decoys": self._decoys}
