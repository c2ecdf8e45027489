"""Every cell in a process of its own: a crash, even of the interpreter, costs one cell."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from poisonbench.attempt import Trial, Verdict, Watch, attempt, finished, settle
from poisonbench.birth import born
from poisonbench.cell import Cell
from poisonbench.desk import Desk
from poisonbench.errors import UserError
from poisonbench.progress import Progress
from poisonbench.store import Store
from poisonbench.twin import twin_of

GRACE = 10.0
"""Seconds that a stopped process has for cleaning up."""

PATIENCE = 1.0
"""Seconds between two looks at cells that another runner works on."""


class Killed(Exception):
    """A process ended before its cell did."""


def in_processes(
    cells: Sequence[Cell], store: Store, watch: Watch, workers: int, force: bool, trial: Trial
) -> Iterator[tuple[Cell, Verdict]]:
    """Run ``cells`` in order, ``workers`` at a time; yields each with its verdict as it ends.

    A cell that another runner works on, or whose undefended twin somebody works on, is left for later.

    Raises:
        UserError: when nothing can be written; the other processes are stopped.
    """
    waiting, running = list(cells), dict[Connection, Worker]()
    try:
        while waiting or running:
            while len(running) < workers and (cell := _next(waiting, running.values(), store)):
                waiting.remove(cell)
                if not force and finished(store, cell):
                    yield cell, Verdict("already done")
                    continue
                seat = next(n for n in count() if n not in {worker.seat for worker in running.values()})
                worker = Worker.start(cell, store, watch, force, trial, seat)
                running[worker.connection] = worker
            for connection in wait(list(running), PATIENCE if waiting else None) if running else ():
                assert isinstance(connection, Connection)
                worker = running[connection]
                verdict = worker.hear()
                if verdict is None and not worker.dead:
                    continue
                del running[connection]
                worker.process.join()
                if verdict or (verdict := worker.buried(store, force)):
                    yield worker.cell, verdict
                else:
                    waiting.append(worker.cell)
    finally:
        for worker in running.values():
            worker.process.terminate()
        for worker in running.values():
            worker.stop()


def _next(waiting: Sequence[Cell], running: Collection[Worker], store: Store) -> Cell | None:
    """The first cell that can begin; one that must wait for another runner only if there is nothing else to do."""
    ours = {worker.cell.folder for worker in running}
    for cell in waiting:
        needed = [cell, *filter(None, [twin_of(cell)])]
        if not any(one.folder in ours or store.is_claimed(one) for one in needed):
            return cell
    return waiting[0] if waiting and not running else None


@dataclass
class Worker:
    """The parent's side of one process."""

    cell: Cell
    process: BaseProcess
    connection: Connection
    progress: Progress
    seat: int
    dead: bool = False

    @classmethod
    def start(cls, cell: Cell, store: Store, watch: Watch, force: bool, trial: Trial, seat: int) -> Worker:
        """Start a process for ``cell``; ``seat`` is a number that no other running one has."""
        context = get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        arguments = (cell.model_dump_json(), str(store.root), force, trial, theirs)
        process = context.Process(target=work, args=arguments)
        with born(cell, seat, hidden=trial.__module__ != "__main__"):
            process.start()
        theirs.close()  # the process has its own copy; ours would hide that it ended
        return cls(cell, process, ours, watch.begin(cell), seat)

    def hear(self) -> Verdict | None:
        """Take one message; a verdict if the cell has ended."""
        try:
            kind, *values = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.dead = True
            return None
        if kind == "stop":
            raise UserError(values[0])
        if kind == "verdict":
            return Verdict(*values)
        getattr(self.progress, kind)(*values)
        return None

    def buried(self, store: Store, force: bool) -> Verdict | None:
        """The verdict on a process that died without one, or None if another runner has taken its cell up."""
        if store.is_claimed(self.cell):
            return None
        died = partial(_fail, self.process.exitcode or 0)
        return attempt(self.cell, store, Progress(), lambda: not force and finished(store, self.cell), died)

    def stop(self) -> None:
        """Wait for a terminated process to clean up, but not for ever."""
        self.process.join(GRACE)
        self.process.kill()


class Relay(Progress):
    """The process's side: sends to the parent what the cell reports."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, *message: Any) -> None:
        """Send a message; with nobody left to hear it, the process ends."""
        try:
            self._connection.send_bytes(json.dumps(message).encode())
        except OSError:
            sys.exit(1)

    def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
        """Pass on."""
        self.send("phase", name, total, unit)

    def advance(self, done: int) -> None:
        """Pass on."""
        self.send("advance", done)

    def note(self, text: str) -> None:
        """Pass on."""
        self.send("note", text)


def work(cell: str, root: str, force: bool, trial: Trial, connection: Connection) -> None:
    """What a process does: one cell, then its verdict."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.dup2(2, 1)  # standard output is for results alone
    relay = Relay(connection)
    try:
        verdict = settle(Cell.model_validate_json(cell), Store(Path(root)), relay, force, trial)
    except UserError as error:
        relay.send("stop", str(error))
    else:
        relay.send("verdict", *verdict)


def _fail(exitcode: int, cell: Cell, desk: Desk, progress: Progress) -> NoReturn:
    if exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = "; it may have run out of memory" if name == "SIGKILL" else ""
        raise Killed(f"its process was killed by {name}{hint}")
    raise Killed(f"its process ended with exit code {exitcode}")
