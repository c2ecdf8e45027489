"""One cell, run or refused or failed: how it ends, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, NoReturn

from poisonbench.cell import Cell
from poisonbench.desk import Desk
from poisonbench.durable import disk_is_full
from poisonbench.errors import UserError, one_line
from poisonbench.failure import failed
from poisonbench.progress import Progress
from poisonbench.records import Record, Stored
from poisonbench.store import Store
from poisonbench.twin import is_shared, twin_of

Trial = Callable[[Cell, Desk, Progress], Stored]
"""Runs a cell, leaves its files on its desk, returns its record; raises UserError for the user's mistakes."""


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

    def expect(self, total: int) -> None:
        """So many cells will end, undefended twins that were not asked for included."""

    def begin(self, cell: Cell) -> Progress:
        """``cell`` starts; returns what it reports to."""
        return Progress()

    def end(self, cell: Cell, verdict: Verdict, record: Record | None) -> None:
        """``cell`` ended; ``record`` is None where it was refused."""

    def refused(self, cell: Cell, reason: str) -> None:
        """Said of every refused cell once the rest is finished."""


def run_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    """The trial that is meant, imported when the first cell begins."""
    from poisonbench import trial

    return trial.run_trial(cell, desk, progress)


def finished(store: Store, cell: Cell) -> bool:
    """Whether ``cell`` has a record with numbers; a failed cell is tried again."""
    record = store.load(cell)
    return record is not None and record.status == "done"


def settle(cell: Cell, store: Store, progress: Progress, force: bool, trial: Trial) -> Verdict:
    """Run one cell, after its undefended twin if it starts from one that is not there yet.

    Raises:
        UserError: when nothing can be written; what the trial refuses becomes a verdict.
    """
    twin = twin_of(cell)
    if twin is not None and (force or not finished(store, cell)):
        verdict = attempt(twin, store, progress, partial(_serves, store, twin), trial)
        if verdict.word == "refused":
            return verdict
        if verdict.word == "failed":
            trial = partial(_without_twin, f"its undefended twin {twin.folder} failed: {verdict.reason}")
    return attempt(cell, store, progress, lambda: not force and finished(store, cell), trial, twin)


def attempt(
    cell: Cell,
    store: Store,
    progress: Progress,
    enough: Callable[[], bool],
    trial: Trial,
    twin: Cell | None = None,
) -> Verdict:
    """Run one cell and put its record in place, unless by now there is ``enough``.

    Raises:
        UserError: when nothing can be written; what the trial refuses becomes a verdict.
    """
    waits = partial(progress.phase, "waiting for another run of this cell")
    with store.claimed(cell, waits), store.staging(cell) as staged:
        if enough():
            return _verdict(store.need(cell), "already done")
        try:
            stored = trial(cell, store.desk(staged, cell, twin), store.plan.beating(cell, progress))
        except UserError as error:
            store.tidy(cell, checkpoints=False)
            return Verdict("refused", one_line(error))
        except Exception as error:
            if disk_is_full(error):
                raise store.unwritable(error) from None
            stored = failed(cell, error)
            if finished(store, cell):
                store.tidy(cell, checkpoints=False)
                return Verdict("failed", f"{_verdict(stored, 'done').reason}; its earlier record stays")
        store.commit(cell, staged, stored)
    return _verdict(stored, "done")


def _verdict(record: Stored, done: Literal["done", "already done"]) -> Verdict:
    return Verdict(done) if record.failure is None else Verdict("failed", record.failure.reason)


def _serves(store: Store, twin: Cell) -> bool:
    """Whether an undefended cell need not be run again: others can start from it, or it failed and would again."""
    record = store.load(twin)
    return record is not None and (record.status == "failed" or is_shared(store.folder(twin)))


class TwinFailed(Exception):
    """There is no undefended model to start from."""


def _without_twin(reason: str, cell: Cell, desk: Desk, progress: Progress) -> NoReturn:
    raise TwinFailed(reason)
