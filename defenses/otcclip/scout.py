"""A scout goes ahead: a plain model that may learn the trigger, so that the trigger gives the poisons away.

In a model that has learned a trigger, the images that carry it are a crowd, whatever they show. A blur, a lack of colour, a
stretch of the tones, a turn or being put upside down breaks most triggers, and then the crowd comes apart, while pictures that
are alike stay together; ``crowds`` counts how strange that is. No poison is known. All of it is our reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poisonbench.defense import Objective
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.crowds import moving, scattering
from poisonbench.defenses.otcclip.looks import Name, disturbed
from poisonbench.lab import Lab
from poisonbench.pairs import ImageStore
from poisonbench.towers import Towers

BLOCK = 131072
"""Pictures among which neighbours are sought: the cost grows with the data, not with its square."""

UNSUSPECTED = -1
"""Stands for the telling look of whom the scout does not suspect."""

TOGETHER = 512
"""Pictures that the scout looks at at a time."""


def suspects(lab: Lab, groups: Tensor, config: OTCCLIPConfig) -> Tensor:
    """Train a scout and suspect the pictures whose crowds are strangest.

    Args:
        lab: the workplace.
        groups: int64 (n,) the picture of every row, from 0 without gaps; copies of a picture are no crowd.
        config: ``outlying`` is how many median absolute deviations above the median a picture is suspected, in these ``looks``,
            with ``crowds`` of so many neighbours and ``unanimity``. With ``outlying`` 0, or where nothing is tested, nobody is
            suspected, and no scout is trained.

    Returns:
        int64 (n,): for the rows of a suspected picture the place in ``looks`` of the one in which its crowd is strangest,
        for the others ``UNSUSPECTED``.
    """
    if not config.outlying or config.reassign == "all":
        return torch.full((len(groups),), UNSUSPECTED)
    lab.progress.note(f"OTCCLIP trains a scout: plain CLIP, {lab.recipe.epochs} epochs, all rows")
    scout = lab.train(Objective())
    captions = lab.embed_captions(scout, [options[0] for options in lab.pairs.captions])
    return suspected_by(scout, lab.pairs.images, captions, groups, config, lab.rng("scout"))


def suspected_by(
    scout: Towers,
    images: ImageStore,
    captions: Tensor,
    groups: Tensor,
    config: OTCCLIPConfig,
    rng: torch.Generator,
) -> Tensor:
    """The pictures whose crowds are strangest in a finished scout, which embeds the ``captions`` (n, d) so.

    The other arguments and the result are those of ``suspects``.
    """
    rows = first_rows(groups)
    strange, telling = torch.zeros(len(rows)), torch.zeros(len(rows), dtype=torch.int64)
    order = torch.randperm(len(rows), generator=rng)
    for block in order.tensor_split(-(-len(order) // BLOCK)):
        looks = _seen(scout, images, rows[block], config.looks)
        texts = captions[rows[block]].to(looks.device)
        found = strangeness(looks, texts, config)
        strange[block], telling[block] = (each.cpu() for each in found)
    return telling.where(strange > config.outlying, UNSUSPECTED)[groups]


def first_rows(groups: Tensor) -> Tensor:
    """The first row of every picture: int64 (pictures,)."""
    size = int(groups.max()) + 1
    rows = torch.arange(len(groups))
    return torch.full((size,), len(groups)).scatter_reduce(0, groups, rows, "amin")


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
