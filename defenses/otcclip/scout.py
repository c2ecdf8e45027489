"""A scout goes ahead: the undefended model, which has learned the trigger, so that the trigger gives the poisons away.

In a model that has learned a trigger, the images that carry it are a crowd, whatever they show. A blur, a lack of colour, a
stretch of the tones, a hard contrast, a turn or being put upside down breaks most triggers, and then the crowd comes apart,
while pictures that are alike stay together; ``crowds`` counts how strange that is. No poison is known. All of it is our
reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.copies import first_rows, with_near_copies
from poisonbench.defenses.otcclip.crowds import moving, scattering
from poisonbench.defenses.otcclip.looks import Name, disturbed
from poisonbench.lab import Lab
from poisonbench.pairs import ImageStore
from poisonbench.towers import Towers

BLOCK = 131072
"""Pictures among which neighbours are sought: the cost grows with the data, not with its square."""

TOGETHER = 512
"""Pictures that the scout looks at at a time."""


@dataclass(frozen=True)
class Suspicion:
    """What a scout holds of n rows.

    Attributes:
        degree: (n,) in [0, 1], how strange the crowd of a row's picture is: 0 up to the median, 1 for a suspect.
        telling: int64 (n,) the place in ``looks`` of the one in which it is strangest.
        groups: int64 (n,) the picture of every row, from 0 without gaps; near copies show the same.
    """

    degree: Tensor
    telling: Tensor
    groups: Tensor

    @property
    def suspects(self) -> Tensor:
        """Who is suspected: bool (n,)."""
        return self.degree == 1


def nobody(groups: Tensor) -> Suspicion:
    """No suspicion of rows that show the pictures ``groups`` (n,)."""
    return Suspicion(torch.zeros(len(groups)), torch.zeros_like(groups), groups)


def suspicion(lab: Lab, groups: Tensor, config: OTCCLIPConfig) -> Suspicion:
    """Ask a scout, the undefended model, and suspect the pictures whose crowds are strangest.

    Args:
        lab: the workplace.
        groups: int64 (n,) the picture of every row, from 0 without gaps, as far as exact copies tell; they are no crowd.
        config: ``outlying`` is how many median absolute deviations above the median a picture is suspected, in these ``looks``,
            with ``crowds`` of so many neighbours and ``unanimity``; ``alike`` is how well near copies agree. With
            ``outlying`` 0, or where nothing is tested, no scout is asked and nobody suspected.
    """
    if not config.outlying or config.reassign == "all":
        return nobody(groups)
    scout = lab.undefended()
    captions = lab.embed_captions(scout, [options[0] for options in lab.pairs.captions])
    return suspicion_by(scout, lab.pairs.images, captions, groups, config, lab.rng("scout"))


def suspicion_by(
    scout: Towers,
    images: ImageStore,
    captions: Tensor,
    groups: Tensor,
    config: OTCCLIPConfig,
    rng: torch.Generator,
) -> Suspicion:
    """What a finished scout, which embeds the ``captions`` (n, d) so, holds of the rows.

    The other arguments are those of ``suspicion``.
    """
    rows = first_rows(groups)
    strange, telling = torch.zeros(len(rows)), torch.zeros(len(rows), dtype=torch.int64)
    points = captions.new_empty(len(rows), captions.shape[1])
    order = torch.randperm(len(rows), generator=rng)
    for block in order.tensor_split(-(-len(order) // BLOCK)):
        looks = _seen(scout, images, rows[block], config.looks)
        texts = captions[rows[block]].to(looks.device)
        found = strangeness(looks, texts, config)
        strange[block], telling[block] = (each.cpu() for each in found)
        points[block] = looks[0].to(points)
    degree = (strange / config.outlying).clamp(0, 1)
    pictures = with_near_copies(images, groups, points.to(scout.device), config.alike)
    return Suspicion(degree[groups], telling[groups], pictures)


def strangeness(looks: Tensor, captions: Tensor, config: OTCCLIPConfig) -> tuple[Tensor, Tensor]:
    """How strange the crowds of every picture are, be they torn apart or moved alike; the larger answer stands.

    Args:
        looks: (1 + k, n, d) unit embeddings of the pictures as they are, then of the disturbed looks.
        captions: (n, d) unit embeddings of their captions.
        config: ``crowds`` and ``unanimity``.

    Returns:
        (n,) in median absolute deviations, and int64 (n,) in which of the k disturbed looks they are strangest.
    """
    count = looks.shape[1]
    if count < 2:
        return looks.new_zeros(count), torch.zeros(count, dtype=torch.int64)
    torn, tearing = scattering(looks, config.crowds)
    if config.unanimity == 1:
        return torn, tearing
    moved, mover = moving(looks, captions, config.crowds, config.unanimity)
    return torch.maximum(torn, moved), mover.where(moved > torn, tearing)


@torch.inference_mode()
def _seen(towers: Towers, images: ImageStore, rows: Tensor, looks: Sequence[Name]) -> Tensor:
    """Embeddings (1 + k, n, d) of the pictures of some rows, as they are and in every one of ``looks``."""
    towers.eval()
    found = []
    for part in rows.split(TOGETHER):
        pictures = images.fetch(part.numpy()).float() / 255
        views = (pictures, *disturbed(pictures, looks))
        found.append(torch.stack([towers.image(view).embedding for view in views]))
    return torch.cat(found, dim=1)
