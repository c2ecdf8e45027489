"""One cell, run or refused or failed: how it ends, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from poisonbench.cell import Cell
from poisonbench.errors import UserError
from poisonbench.failure import failed
from poisonbench.progress import Progress
from poisonbench.records import Record, Stored
from poisonbench.store import Store, disk_is_full, one_line

Trial = Callable[[Cell, Path, Progress], Stored]
"""Runs a cell, leaves its files in a folder, returns its record; raises UserError for the user's mistakes."""


class Verdict(NamedTuple):
    """How a cell ended.

    Attributes:
        word: ``refused`` is the user's mistake and leaves no record; the others have one.
        reason: why it failed or was refused.
    """

    word: Literal["done", "already done", "failed", "refused"]
    reason: str = ""


class Watch:
    """Hears what happens to the cells of a grid; this base class stays silent, subclasses show it."""

    def begin(self, cell: Cell) -> Progress:
        """``cell`` starts; returns what it reports to."""
        return Progress()

    def end(self, cell: Cell, verdict: Verdict, record: Record | None) -> None:
        """``cell`` ended; ``record`` is None where it was refused."""

    def refused(self, cell: Cell, reason: str) -> None:
        """Said of every refused cell once the rest is finished."""


def run_trial(cell: Cell, folder: Path, progress: Progress) -> Stored:
    """The trial that is meant, imported when the first cell begins."""
    from poisonbench import trial

    return trial.run_trial(cell, folder, progress)


def finished(store: Store, cell: Cell) -> bool:
    """Whether ``cell`` has a record with numbers; a failed cell is tried again."""
    record = store.load(cell)
    return record is not None and record.status == "done"


def settle(cell: Cell, store: Store, progress: Progress, force: bool, trial: Trial) -> Verdict:
    """Run one cell and put its record in place, unless another runner was faster.

    Raises:
        UserError: when nothing can be written; what the trial refuses becomes a verdict.
    """
    waits = partial(progress.phase, "waiting for another run of this cell")
    with store.claimed(cell, waits), store.staging(cell) as staged:
        if not force and finished(store, cell):
            return Verdict("already done")
        try:
            stored = trial(cell, staged, progress)
        except UserError as error:
            return Verdict("refused", one_line(error))
        except Exception as error:
            if disk_is_full(error):
                raise store.unwritable(error) from None
            stored = failed(cell, error)
        store.commit(cell, staged, stored)
    return Verdict(stored.status, stored.failure.reason if stored.failure else "")
