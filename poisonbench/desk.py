"""Where a cell works: the folder that becomes its place in the store, and what it keeps and shares meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Desk:
    """The folders of a running cell; without the optional ones it keeps nothing, shares nothing and trains all itself.

    Attributes:
        folder: for the cell's files, committed as a whole once the record is written.
        checkpoints: for unfinished work, removed when the cell is done.
        poisons: for manifests that all defences of an attack, data set and seed share.
        twin: of the finished undefended cell that the cell starts from.
    """

    folder: Path
    checkpoints: Path | None = None
    poisons: Path | None = None
    twin: Path | None = None
