"""From rows as the user has them to sound pairs, with every row that cannot be used named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from poisonbench.errors import UserError
from poisonbench.pairs import Chosen, Pairs, Rows
from poisonbench.progress import Progress
from poisonbench.randomness import numpy_rng
from poisonbench.sources.parting import TRAIN, Captions, by_caption, united
from poisonbench.sources.pictures import Gallery
from poisonbench.tier import DataSpec

CAPTION_KEYS = ("caption", "text", "captions", "title")
"""Where captions are looked for; the first with a caption counts."""

NAMED = 1000
"""Unusable rows that are named one by one."""


class RawRows(Protocol):
    """Image-caption rows as the user has them; nothing is checked yet."""

    def __len__(self) -> int:
        """The number of rows."""
        ...

    def captions(self) -> Iterator[Captions]:
        """The usable captions of every row in order, none where there is none."""
        ...

    def picture(self, row: int) -> bytes:
        """The image file of a row; raises OSError or BrokenImage where there is none."""
        ...

    def name(self, row: int) -> str:
        """What the user calls the row: a file or a number."""
        ...


@dataclass(frozen=True)
class SoundRows:
    """What is left of raw rows.

    Attributes:
        pairs: per part (train, clean, validation) its pairs.
        skipped: one line per row that could not be used, naming it.
    """

    pairs: dict[str, Pairs]
    skipped: Captions


def captions_of(value: Any) -> Captions:
    """The captions in a cell, be it text, a list or a mapping with a caption key, or one in the other; tidied, without blanks."""
    return tuple(dict.fromkeys(_texts(value)))


def _texts(value: Any) -> list[str]:
    match value:
        case dict():
            found = (_texts(value.get(key)) for key in CAPTION_KEYS)
            return next(filter(None, found), [])
        case list() | tuple():
            return [text for option in value for text in _texts(option)]
        case bool():
            return []
        case float() if value.is_integer():  # a column of numbers with a blank in it
            return [str(int(value))]
        case int() | float() if value == value:
            return [str(value)]
        case str():
            return list(filter(None, [" ".join(value.split())]))
    return []


def sound_rows(raw: RawRows, spec: DataSpec, side: int, progress: Progress) -> SoundRows:
    """Check every row, split what is sound by caption and picture, and cut the training rows to ``spec.limit``.

    Raises:
        UserError: when no training pair is left.
    """
    captions = list(raw.captions())
    parts = by_caption(captions, spec.clean, spec.validation)
    gallery = Gallery(raw.picture, len(raw), side)
    sound = {
        name: _look(gallery, rows, spec.limit if name == TRAIN else 0, name, progress)
        for name, rows in parts.items()
    }
    kept = united(sound, captions, gallery.digests)
    kept[TRAIN] = kept[TRAIN][: spec.limit or None]
    reasons = {row: "the caption is empty or missing" for row, options in enumerate(captions) if not options}
    reasons |= {row: f"the image cannot be read ({reason})" for row, reason in gallery.broken.items()}
    skipped = listing(f"{raw.name(row)}: {reasons[row]}" for row in sorted(reasons))
    if not len(kept[TRAIN]):
        why = f"skipped {skipped[0]}" if skipped else "it needs more of them"
        raise UserError(f"data '{spec.source}': none of {len(captions)} rows is left to train on ({why})")
    return SoundRows({name: _pairs(gallery, captions, np.sort(rows)) for name, rows in kept.items()}, skipped)


def listing(lines: Iterable[str]) -> Captions:
    """``lines``, of which so many that nobody would read them all become a number."""
    told = tuple(lines)
    return told if len(told) <= NAMED else (*told[:NAMED], f"... and {len(told) - NAMED} more")


def _look(gallery: Gallery, rows: Rows, limit: int, part: str, progress: Progress) -> Rows:
    if limit:
        rows = numpy_rng("data limit").permutation(rows)
    progress.phase(f"checking images, {part}", min(limit, len(rows)) if limit else len(rows), "images")
    sound = []
    for done, row in enumerate(islice(gallery.sound(rows.tolist()), limit or None), start=1):
        sound.append(row)
        progress.advance(done)
    return np.array(sound, dtype=np.int64)


def _pairs(gallery: Gallery, captions: Sequence[Captions], rows: Rows) -> Pairs:
    digest = hashlib.sha256(str(gallery.side).encode())
    for row in rows.tolist():
        digest.update(gallery.digests[row] + "\n".join(captions[row]).encode() + b"\0")
    options = [captions[row] for row in rows.tolist()]
    return Pairs(Chosen(gallery.images, rows), options, digest.hexdigest()[:16])
