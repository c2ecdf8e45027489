"""Which rows are trained on, and which stay clean: no picture and no caption is in two parts."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from poisonbench.pairs import Rows

TRAIN = "train"
PARTS = (TRAIN, "clean", "validation")

Captions = tuple[str, ...]
Parts = dict[str, Rows]


def by_caption(captions: Sequence[Captions], clean: float, validation: float) -> Parts:
    """Rows of each part, ascending; equal captions are in one part, rows without one in none.

    Args:
        captions: per row its captions; the first one decides.
        clean: share of the clean part.
        validation: share of the validation part.
    """
    parts: dict[str, list[int]] = {name: [] for name in PARTS}
    for row, options in enumerate(captions):
        if options:
            place = _place(options[0])
            part = "validation" if place < validation else "clean" if place < validation + clean else TRAIN
            parts[part].append(row)
    return {name: np.array(rows, dtype=np.int64) for name, rows in parts.items()}


def united(parts: Mapping[str, Rows], captions: Sequence[Captions], digests: Mapping[int, bytes]) -> Parts:
    """``parts`` once rows with one picture have come together, as where every picture has five rows of captions.

    Rows that a picture or a caption connects, directly or through others, go where the first of them is; if they are more than
    half of all rows, they are trained on, since nothing else would be left to train on.

    Args:
        parts: rows of each part, in any order; those that come to it are put behind its own.
        captions: per row its captions; the first one decides.
        digests: per row a hash of its picture.
    """
    names, rows = list(parts), np.concatenate(list(parts.values()))
    own = np.repeat(np.arange(len(names)), [len(some) for some in parts.values()])
    component = _components(rows, captions, digests)
    home: dict[int, int] = {}
    for place in np.argsort(rows).tolist():
        home.setdefault(int(component[place]), int(own[place]))
    for large in np.flatnonzero(np.bincount(component) > len(rows) / 2).tolist():
        home[large] = names.index(TRAIN)
    goal = np.array([home[one] for one in component.tolist()], dtype=np.int64)
    order = np.argsort(goal != own, kind="stable")
    return {name: rows[order[goal[order] == number]] for number, name in enumerate(names)}


def _components(rows: Rows, captions: Sequence[Captions], digests: Mapping[int, bytes]) -> Rows:
    """Per row the number of its component in the graph of rows, pictures and captions."""
    keys: dict[bytes | str, int] = {}
    ties = [
        (place, len(rows) + keys.setdefault(key, len(keys)))
        for place, row in enumerate(rows.tolist())
        for key in (digests[row], _said(captions[row][0]))
    ]
    if not ties:
        return rows
    ends = np.array(ties).T
    nodes = len(rows) + len(keys)
    graph = coo_array((np.ones(len(ties), dtype=np.bool_), (ends[0], ends[1])), shape=(nodes, nodes))
    found: Rows = connected_components(graph, directed=False)[1][: len(rows)].astype(np.int64)
    return found


def _said(caption: str) -> str:
    """What the caption says, without case and spacing."""
    return " ".join(unicodedata.normalize("NFKC", caption).casefold().split())


def _place(caption: str) -> float:
    """A number in [0, 1] that depends on what the caption says."""
    return int.from_bytes(hashlib.sha256(_said(caption).encode()).digest()[:8], "big") / 2**64
