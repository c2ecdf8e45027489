"""A scout goes ahead: a plain model that may learn the trigger, so that the trigger gives the poisons away.

In a model that has learned a trigger, the images that carry it are a crowd, whatever they show. A blur, a lack of colour, a
stretch of the tones, a turn or being put upside down breaks most triggers, and then the crowd comes apart, while pictures that
are alike stay together. So every image is asked how much of their agreement its nearest neighbours lose, and then shares their
answers, and their neighbours', since a poison is seldom alone. Captions may be asked as well: a backdoor's crowd is captioned
alike. No poison is known. All of it is our reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poisonbench.defense import Objective
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
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

CHUNK = 1024
"""Pictures whose neighbours are sought, or gathered, at a time."""

SHARINGS = 3
"""How often every picture takes the mean of its neighbours' answers."""


def suspects(lab: Lab, groups: Tensor, config: OTCCLIPConfig) -> Tensor:
    """Train a scout and suspect the pictures whose crowds come apart most.

    Args:
        lab: the workplace.
        groups: int64 (n,) the picture of every row, from 0 without gaps; copies of a picture are no crowd.
        config: ``outlying`` is how many median absolute deviations above the median a picture is suspected, in these ``looks``,
            with ``crowds`` of so many neighbours that are captioned at least as much ``alike`` as that share of all crowds.
            With ``outlying`` 0, or where nothing is tested, nobody is suspected, and no scout is trained.

    Returns:
        int64 (n,): for the rows of a suspected picture the place in ``looks`` of the one in which its crowd comes apart most,
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
    """The pictures whose crowds come apart most in a finished scout, which embeds the ``captions`` (n, d) so.

    The other arguments and the result are those of ``suspects``.
    """
    rows = first_rows(groups)
    strange, telling = torch.zeros(len(rows)), torch.zeros(len(rows), dtype=torch.int64)
    order = torch.randperm(len(rows), generator=rng)
    for block in order.tensor_split(-(-len(order) // BLOCK)):
        looks = _seen(scout, images, rows[block], config.looks)
        texts = captions[rows[block]].to(looks.device)
        found = scattering(looks, texts, config.crowds, config.alike)
        strange[block], telling[block] = (each.cpu() for each in found)
    return telling.where(strange > config.outlying, UNSUSPECTED)[groups]


def first_rows(groups: Tensor) -> Tensor:
    """The first row of every picture: int64 (pictures,)."""
    size = int(groups.max()) + 1
    rows = torch.arange(len(groups))
    return torch.full((size,), len(groups)).scatter_reduce(0, groups, rows, "amin")


def scattering(looks: Tensor, captions: Tensor, crowds: Sequence[int], alike: float) -> tuple[Tensor, Tensor]:
    """How much of their agreement the neighbours of every picture lose when they are disturbed, shared among neighbours.

    Agreement is the length of the neighbours' mean. Its loss, the largest over the disturbed looks, and what neighbours share
    of it are both counted in median absolute deviations from the median. Of several crowds the largest answer stands, and the
    answer of one whose captions agree too little is 0.

    Args:
        looks: (1 + k, n, d) unit embeddings of the pictures as they are, then of the disturbed looks.
        captions: (n, d) unit embeddings of their captions.
        crowds: how many neighbours per picture are asked, at most all others.
        alike: share of the crowds whose captions agree no more than those of a crowd that is heard; in [0, 1).

    Returns:
        (n,), and int64 (n,) in which of the k disturbed looks a picture and its neighbours lose most.
    """
    count = looks.shape[1]
    if count < 2:
        return looks.new_zeros(count), torch.zeros(count, dtype=torch.int64)
    crowds = [min(crowd, count - 1) for crowd in crowds]
    near = _nearest(looks[0], max(crowds))
    answers = [_answers(looks, captions, near[:, :crowd], alike) for crowd in crowds]
    strange, telling = (torch.stack(each).amax(dim=0) for each in zip(*answers, strict=True))
    return strange, telling.argmax(dim=1)


def _answers(looks: Tensor, captions: Tensor, near: Tensor, alike: float) -> tuple[Tensor, Tensor]:
    """How strange the crowd ``near`` every picture is, (n,), and what it and its neighbours lose in every look, (n, k)."""
    lost, agreed = _lost(looks, near), _agreement(captions, near)
    strange = _deviations(_shared(lost.amax(dim=1), near))
    return strange.where(agreed >= agreed.quantile(alike), 0.0), _shared(lost, near)


def _lost(looks: Tensor, near: Tensor) -> Tensor:
    """How much agreement every picture's neighbours lose in each of the k disturbed looks, in deviations: (n, k)."""
    together, *others = (_agreement(look, near) for look in looks)
    return torch.stack([_deviations(together - apart) for apart in others], dim=1)


def _shared(answers: Tensor, near: Tensor) -> Tensor:
    """The answers (n, ...) of every point's neighbours, and theirs, on average."""
    for _ in range(SHARINGS):
        answers = answers[near].mean(dim=1)
    return answers


def _nearest(points: Tensor, k: int) -> Tensor:
    """The k most similar other points of every point (n, d): int64 (n, k)."""
    found = []
    for at in torch.arange(len(points), device=points.device).split(CHUNK):
        similar = points[at] @ points.T
        similar.scatter_(1, at[:, None], -torch.inf)
        found.append(similar.topk(k, dim=1).indices)
    return torch.cat(found)


def _agreement(points: Tensor, near: Tensor) -> Tensor:
    """The length of the mean of every point's neighbours: (n,)."""
    return torch.cat([points[some].mean(dim=1).norm(dim=1) for some in near.split(CHUNK)])


def _deviations(values: Tensor) -> Tensor:
    """How many median absolute deviations every value lies above the median: (n,)."""
    deviation = values - values.median()
    return deviation / deviation.abs().median().clamp_min(1e-6)


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
