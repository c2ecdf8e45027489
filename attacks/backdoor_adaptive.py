"""A patch backdoor that knows OTCCLIP: a surrogate couples images and captions that will pass for sound pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from poisonbench.attack import AttackCard
from poisonbench.attacks.backdoor_badnet import BadNet
from poisonbench.attacks.surrogate import Surrogate, SurrogateConfig, WithSurrogate
from poisonbench.manifest import Manifest, painted
from poisonbench.pairs import Pairs, Rows
from poisonbench.tasks import Assets

REFERENCES = 64
"""Pictures and captions of the corpus that a pair is compared with."""


class BackdoorAdaptive(WithSurrogate, BadNet):
    """BadNet's patch on those images, with those captions, that fit each other best under the surrogate.

    ``pool`` times as many rows and captions are drawn as are poisoned. How well an image and a caption fit is judged as a
    test of soundness would: by how many standard deviations their transport cost lies below the image's costs to other
    captions, and below the caption's costs to other images. The best pairs are taken one after the other, every row once and
    the captions as evenly as the budget allows. The trigger, the probe and its controls are those of ``backdoor_badnet``.
    """

    card = AttackCard(
        title="BadNet patch, adaptive",
        paper="-",
        year=2026,
        edits=("image", "caption"),
        surrogate=True,
        notes="Ours, built against OTCCLIP (arXiv:2509.18717); we know of no published attack that chooses poisons like this.",
    )

    class Config(SurrogateConfig, BadNet.Config):
        """Budget, target, trigger and surrogate.

        Attributes:
            pool: rows that are considered for each that is poisoned, as far as there are.
            judged: whether the surrogate sees the images with the patch, as the victim will, or without.
        """

        pool: int = Field(4, ge=1)
        judged: Literal["patched", "clean"] = "patched"

    def poison(self, pairs: Pairs, assets: Assets, rng: np.random.Generator) -> Manifest:
        """Trigger and re-caption ``rate`` of the rows."""
        drawn = super().poison(pairs, assets, rng)
        captions = list(dict.fromkeys(text for edit in drawn.edits for text in edit.captions or ()))
        surrogate = self.surrogate(pairs, rng)
        fit = fits(surrogate, self._images(pairs, drawn), captions, pairs, rng)
        edits = tuple(
            drawn.edits[at].model_copy(update={"captions": (captions[text],)})
            for at, text in couples(fit, self._budget(pairs))
        )
        return drawn.model_copy(update={"edits": edits})

    def victims(self, pairs: Pairs, words: tuple[str, ...], budget: int, rng: np.random.Generator) -> Rows:
        """The rows to choose from, ascending: ``pool`` times the budget, or all that do not name the target."""
        free = len(pairs.rows_without(words))
        return super().victims(pairs, words, max(budget, min(budget * self.config.pool, free)), rng)

    def _budget(self, pairs: Pairs) -> int:
        rate: float = self.config.rate
        return max(1, round(rate * len(pairs)))

    def _images(self, pairs: Pairs, drawn: Manifest) -> Tensor:
        """The rows' images as they are judged, uint8 (n, 3, side, side)."""
        images = pairs.images.fetch(np.array([edit.row for edit in drawn.edits]))
        triggers = [edit.operation for edit in drawn.edits if edit.operation is not None]
        return images if self.config.judged == "clean" else painted(images, triggers)


def fits(
    surrogate: Surrogate, images: Tensor, captions: Sequence[str], pairs: Pairs, rng: np.random.Generator
) -> Tensor:
    """How much better every pair fits than pairs with random rows do, in standard deviations.

    Args:
        surrogate: measures the transport costs.
        images: uint8 (b, 3, side, side).
        captions: p texts.
        pairs: the references are taken from these.
        rng: draws them.

    Returns:
        fp32 (b, p): larger is better; the sum over both directions, image to captions and caption to images.
    """
    rows = rng.choice(len(pairs), min(REFERENCES, len(pairs)), replace=False)
    cost = surrogate.distances(images, captions)
    by_image = surrogate.distances(images, [pairs.captions[row][0] for row in rows])
    by_caption = surrogate.distances(pairs.images.fetch(rows), captions)
    return _below(cost, by_image, dim=1) + _below(cost, by_caption, dim=0)


def _below(cost: Tensor, references: Tensor, dim: int) -> Tensor:
    return (references.mean(dim, keepdim=True) - cost) / references.std(dim, keepdim=True).clamp_min(1e-6)


def couples(fit: Tensor, count: int) -> list[tuple[int, int]]:
    """The best-fitting pairs, every row once and every column as often as an even use of all needs.

    Args:
        fit: (b, p), larger is better; b is at least ``count``.
        count: how many.

    Returns:
        (row, column) in the order of the rows.
    """
    columns = fit.shape[1]
    left = np.full(columns, math.ceil(count / columns))
    found: dict[int, int] = {}
    for at in fit.flatten().argsort(descending=True, stable=True).tolist():
        row, column = divmod(at, columns)
        if row not in found and left[column]:
            found[row] = column
            left[column] -= 1
        if len(found) == count:
            break
    return sorted(found.items())
