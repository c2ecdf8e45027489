"""Finished cells on disk: one folder each, which appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from poisonbench import claims
from poisonbench.cell import Cell
from poisonbench.desk import Desk
from poisonbench.durable import DRAFT, put_in_place, write_atomically
from poisonbench.errors import UserError, one_line
from poisonbench.plan import ENDS, Plan
from poisonbench.reading import problem, read_record, readable
from poisonbench.records import Record, Stored
from poisonbench.validity import UNDEFENDED, derived

RECORD = "record.json"
PROBE_BYTES = 1 << 20
"""Written and removed before a run, so that a full disk is found before the training and not after it."""

LOCK, PART = ".lock", ".part"
POISONS = ".poisons"
"""The folder of manifests that cells share."""


class Entry(NamedTuple):
    """A record and the file that it was read from."""

    record: Record
    path: Path


class Store:
    """The finished cells under one folder.

    Attributes:
        root: the folder; made when the first cell is run.
        plan: what the folder was asked for and how far it is.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.plan = root, Plan(root)

    def folder(self, cell: Cell) -> Path:
        """Where ``cell`` is, or will be once it is finished."""
        return self.root / cell.folder

    def path(self, cell: Cell) -> Path:
        """The file of its record."""
        return self.folder(cell) / RECORD

    def load(self, cell: Cell) -> Record | None:
        """The record of ``cell``, or None if it was not run.

        Raises:
            UserError: when the record is damaged; names the file.
        """
        stored = read_record(self.path(cell))
        if stored is None:
            return None
        twins = self.root.glob(
            f"{cell.attack.name}--{UNDEFENDED}--{cell.tier.name}--s{cell.seed}--*/{RECORD}"
        )
        return derived([stored, *(twin for twin, _ in readable(twins))])[0]

    def need(self, cell: Cell) -> Record:
        """The record of ``cell``, which must exist.

        Raises:
            UserError: when it does not, or is damaged.
        """
        record = self.load(cell)
        if record is None:
            raise UserError(f"there is no record {self.path(cell)}; run the cell first")
        return record

    def records(self) -> list[Record]:
        """Every readable record, by folder name; damaged ones are left out with a warning."""
        return [entry.record for entry in self.entries()]

    def entries(self) -> list[Entry]:
        """Every readable record with its file, by folder name; damaged ones are left out with a warning."""
        found = list(readable(self._paths()))
        records = derived([stored for stored, _ in found])
        return [Entry(record, path) for record, (_, path) in zip(records, found, strict=True)]

    def problems(self) -> list[str]:
        """One line per record that cannot be read."""
        return [line for path in self._paths() if (line := problem(path))]

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder and try it with a small file; one in which nothing was done is removed at the end.

        Raises:
            UserError: when nothing can be written there.
        """
        existed = self.root.exists()
        try:
            with self._writing():
                self.root.mkdir(parents=True, exist_ok=True)
                _try_out(self.root)
            yield
        finally:
            if not existed and all(
                map(_is_scrap, self.root.glob("*"))
            ):  # no cell, no checkpoint, no other runner
                shutil.rmtree(self.root, ignore_errors=True)

    @contextmanager
    def claimed(self, cell: Cell, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Keep every other runner away from ``cell``; calls ``on_wait`` and waits for one that was first."""
        with ExitStack() as stack:
            with self._writing():
                stack.enter_context(claims.claimed(self._lock(cell), on_wait))
            yield

    def ask(self, cells: Iterable[Cell]) -> None:
        """Leave a ticket for every cell; those of the same cells with other code or data, which nobody will take up, go."""
        wanted = list(cells)
        folders, meant = {cell.folder for cell in wanted}, {cell.question for cell in wanted}
        for old in self.plan.asked():
            if old.folder not in folders and old.question in meant and not self.is_claimed(old):
                self.plan.forget(old)
        self.plan.ask(wanted)

    def is_claimed(self, cell: Cell) -> bool:
        """Whether a living runner works on ``cell``."""
        return claims.is_claimed(self._lock(cell))

    @contextmanager
    def staging(self, cell: Cell) -> Iterator[Path]:
        """An empty folder to fill before ``commit``; what was not committed is gone afterwards.

        Raises:
            UserError: when the folder cannot be made.
        """
        staged = self.root / f".{cell.folder}{PART}"
        with self._writing():
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def desk(self, staged: Path, cell: Cell, twin: Cell | None = None) -> Desk:
        """Where ``cell`` works: an empty folder, its checkpoints, the poisons of all cells, its finished twin."""
        start = self.folder(twin) if twin else None
        return Desk(staged, self._checkpoints(cell), self.root / POISONS, start)

    def tidy(self, cell: Cell, checkpoints: bool) -> None:
        """Remove what was kept of ``cell`` while it was under way: its ticket, and unless it failed its checkpoints."""
        self.plan.forget(cell)
        if checkpoints:
            shutil.rmtree(self._checkpoints(cell), ignore_errors=True)

    def sweep(self, cell: Cell) -> None:
        """Remove what a runner left of a finished ``cell`` that died when its record was in place but its work not over.

        Where nothing can be removed, it stays.
        """
        with suppress(OSError, UserError):
            self.tidy(cell, checkpoints=True)
            if self._lock(cell).exists() and not self.is_claimed(cell):
                with self.claimed(cell):  # a dead runner's lock is taken over, and gone afterwards
                    pass

    def commit(self, cell: Cell, staged: Path, stored: Stored) -> None:
        """Write the record, the last of the cell's files, and put the whole folder in its place.

        Checkpoints of a failed cell stay: what broke it may be mended.

        Raises:
            UserError: when the disk is full or the folder cannot be written.
        """
        with self._writing():
            write_atomically(staged / RECORD, stored.model_dump_json(indent=1) + "\n")
            shutil.rmtree(self.folder(cell), ignore_errors=True)
            put_in_place(staged, self.folder(cell))
        self.tidy(cell, checkpoints=stored.status == "done")

    def unwritable(self, error: Exception) -> UserError:
        """One sentence about ``--out`` for a disk that is full or a folder that is forbidden."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        return UserError(
            f"--out {self.root}: cannot write there ({reason}); free space or choose another folder"
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.unwritable(error) from None

    def _lock(self, cell: Cell) -> Path:
        return self.root / f".{cell.folder}{LOCK}"

    def _checkpoints(self, cell: Cell) -> Path:
        """A defence can see this path, so it says nothing of the attack."""
        return self.root / f".{cell.identity}.checkpoints"

    def _paths(self) -> list[Path]:
        return sorted(self.root.glob(f"[!.]*/{RECORD}"))


def _is_scrap(path: Path) -> bool:
    """Whether nobody misses ``path`` when no cell was done: it was asked for, drawn, or begun by a process that is gone."""
    if path.suffix == LOCK:
        return not claims.is_claimed(path)
    return path.name == POISONS or path.suffix in (*ENDS, PART) or path.name.startswith(DRAFT)


def _try_out(folder: Path) -> None:
    probe = folder / f"{DRAFT}probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
