"""Crowds that a trigger makes: pictures that are alike until they are disturbed, and pictures that a disturbance moves alike.

A trigger that is fully learned is all that a model sees of a picture, so those that carry it are a crowd, which comes apart in
a look that breaks the trigger. One that is half learned only adds to what a picture shows; then it is what a look takes away
from the pictures that makes them a crowd. A picture's answer is how much more its crowd agrees as a crowd than in the look,
shared with its neighbours and theirs, since a poison is seldom alone. All of it is our reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1024
"""Pictures whose neighbours are sought, or gathered, at a time."""

HELD = 2**28
"""Similarities that are held at a time: with very many pictures, fewer are sought at once."""

NO_SPREAD = 1e-6
"""Deviations that are rounding errors: a look may leave most pictures as they are, as grey ones without their colours."""

SHARINGS = 3
"""How often every picture takes the mean of its neighbours' answers."""


def scattering(looks: Tensor, crowds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """How much of their agreement the neighbours of every picture lose when they are disturbed, shared among neighbours.

    Agreement is the length of the neighbours' mean. Its loss, the largest over the disturbed looks, and what neighbours share
    of it are both counted in median absolute deviations from the median. Of several crowds the largest answer stands.

    Args:
        looks: (1 + k, n, d) unit embeddings of n >= 2 pictures as they are, then of the disturbed looks.
        crowds: how many neighbours per picture are asked, at most all others.

    Returns:
        (n,), and int64 (n,) in which of the k disturbed looks a picture and its neighbours lose most.
    """
    crowds = _at_most_all(crowds, looks)
    near = nearest(looks[0], max(crowds))
    answers = [_scattered(looks, near[:, :crowd]) for crowd in crowds]
    strange, lost = (torch.stack(each).amax(dim=0) for each in zip(*answers, strict=True))
    return strange, lost.argmax(dim=1)


def moving(looks: Tensor, captions: Tensor, crowds: Sequence[int], unanimity: float) -> tuple[Tensor, Tensor]:
    """How much more the pictures that a look moves as it moves this one have in common than what that look leaves of them.

    Pictures that lie alike and move alike are merely of a kind, and so are those that a look moves alike but whose captions
    differ: a backdoor's captions name one target. Answers are counted and shared as in ``scattering``.

    Args:
        looks: as for ``scattering``.
        captions: (n, d) unit embeddings of the pictures' captions.
        crowds: as for ``scattering``.
        unanimity: the captions of a crowd that is heard agree at least as much as those of this share of all crowds; in [0, 1].

    Returns:
        (n,), the largest answer of all looks and crowds, 0 where no crowd is heard, and int64 (n,) the look that gave it.
    """
    crowds = _at_most_all(crowds, looks)
    found = torch.stack([_moved(looks[0], look, captions, crowds, unanimity) for look in looks[1:]], dim=1)
    return found.max(dim=1)


def _scattered(looks: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """How strange the crowd ``near`` every picture is, (n,), and what it and its neighbours lose in every look, (n, k)."""
    lost = torch.stack([_united(looks[0], look, near) for look in looks[1:]], dim=1)
    return _deviations(_shared(lost.amax(dim=1), near)), _shared(lost, near)


def _moved(plain: Tensor, look: Tensor, captions: Tensor, crowds: Sequence[int], unanimity: float) -> Tensor:
    """How strange the crowds are that one look (n, d) moves away from ``plain`` (n, d) alike: (n,)."""
    moves = F.normalize(plain - look, dim=1)
    near = nearest(moves, max(crowds))
    answers = []
    for some in (near[:, :crowd] for crowd in crowds):
        agreed = _agreement(captions, some)
        answer = _deviations(_shared(_united(moves, look, some), some))
        answers.append(answer.where(agreed >= agreed.quantile(unanimity), 0.0))
    return torch.stack(answers).amax(dim=0)


def _united(points: Tensor, look: Tensor, near: Tensor) -> Tensor:
    """How much more every crowd agrees in ``points`` (n, d) than in a look (n, d), in deviations: (n,)."""
    return _deviations(_agreement(points, near) - _agreement(look, near))


def _shared(answers: Tensor, near: Tensor) -> Tensor:
    """The answers (n, ...) of every point's neighbours, and theirs, on average."""
    for _ in range(SHARINGS):
        answers = answers[near].mean(dim=1)
    return answers


def _at_most_all(crowds: Sequence[int], looks: Tensor) -> list[int]:
    """The sizes of the crowds, each of at most all other pictures."""
    return [min(crowd, looks.shape[1] - 1) for crowd in crowds]


def nearest(points: Tensor, k: int) -> Tensor:
    """The k most similar other points of every point (n, d): int64 (n, k)."""
    found = []
    step = max(1, min(CHUNK, HELD // len(points)))
    for at in torch.arange(len(points), device=points.device).split(step):
        similar = points[at] @ points.T
        similar.scatter_(1, at[:, None], -torch.inf)
        found.append(similar.topk(k, dim=1).indices)
    return torch.cat(found)


def _agreement(points: Tensor, near: Tensor) -> Tensor:
    """The length of the mean of every point's neighbours: (n,)."""
    return torch.cat([points[some].mean(dim=1).norm(dim=1) for some in near.split(CHUNK)])


def _deviations(values: Tensor) -> Tensor:
    """How many median absolute deviations every value lies above the median, mean ones where most values are equal: (n,)."""
    deviation = values - values.median()
    spread = deviation.abs().median()
    usual = spread if spread > NO_SPREAD else deviation.abs().mean()
    return deviation / usual.clamp_min(NO_SPREAD)
