"""Finished cells on disk: one folder each, which appears whole or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from poisonbench.cell import Cell
from poisonbench.errors import UserError
from poisonbench.records import Record, Stored
from poisonbench.settings import validated
from poisonbench.validity import UNDEFENDED, derived

RECORD = "record.json"
PROBE_BYTES = 1 << 20
"""Written and removed before a run, so that a full disk is found before the training and not after it."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A record and the file that it was read from."""

    record: Record
    path: Path


class Store:
    """The finished cells under one folder.

    Attributes:
        root: the folder; made when the first cell is run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

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
        return derived([stored, *(twin for twin, _ in _readable(twins))])[0]

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
        found = list(_readable(self._paths()))
        records = derived([stored for stored, _ in found])
        return [Entry(record, path) for record, (_, path) in zip(records, found, strict=True)]

    def problems(self) -> list[str]:
        """One line per record that cannot be read."""
        return [problem for path in self._paths() if (problem := _problem(path))]

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder and try it with a small file; a folder that stays empty is removed at the end.

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
            if not existed:
                with suppress(OSError):
                    self.root.rmdir()

    @contextmanager
    def claimed(self, cell: Cell, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Keep every other runner away from ``cell``; calls ``on_wait`` and waits for one that was first."""
        lock = FileLock(self.root / f".{cell.folder}.lock")
        with self._writing():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire()
        try:
            yield
        finally:
            with suppress(OSError):  # removed while it is held: a waiter notices and makes a new one
                Path(lock.lock_file).unlink()
            lock.release()

    @contextmanager
    def staging(self, cell: Cell) -> Iterator[Path]:
        """An empty folder to fill before ``commit``; what was not committed is gone afterwards.

        Raises:
            UserError: when the folder cannot be made.
        """
        staged = self.root / f".{cell.folder}.part"
        with self._writing():
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def commit(self, cell: Cell, staged: Path, stored: Stored) -> None:
        """Write the record, the last of the cell's files, and put the whole folder in its place.

        Raises:
            UserError: when the disk is full or the folder cannot be written.
        """
        with self._writing():
            write_atomically(staged / RECORD, stored.model_dump_json(indent=1) + "\n")
            shutil.rmtree(self.folder(cell), ignore_errors=True)
            staged.rename(self.folder(cell))

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

    def _paths(self) -> list[Path]:
        return sorted(self.root.glob(f"[!.]*/{RECORD}"))


def read_record(path: Path) -> Stored | None:
    """What the record file holds, or None if there is none.

    Raises:
        UserError: when it cannot be read; names the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"record {path} is damaged ({one_line(error)}); run its cell again with --force"
        ) from None
    return validated(Stored, values, f"record {path}")


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` holds all of it or what it held before, even if the power fails."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=".", delete=False
    ) as file:
        draft = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            draft.chmod(0o644)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def disk_is_full(error: Exception) -> bool:
    """Whether ``error`` says that no space is left; some writers say it only in words."""
    return (isinstance(error, OSError) and error.errno in FULL) or os.strerror(errno.ENOSPC) in str(error)


def one_line(error: BaseException) -> str:
    """The message of ``error`` without line breaks."""
    return " ".join(str(error).split())


def _try_out(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
        probe.write(bytes(PROBE_BYTES))
        probe.flush()
        os.fsync(probe.fileno())


def _readable(paths: Iterable[Path]) -> Iterator[tuple[Stored, Path]]:
    for path in paths:
        try:
            stored = read_record(path)
        except UserError as error:
            log.warning("%s", error)
            continue
        if stored is not None:
            yield stored, path


def _problem(path: Path) -> str | None:
    try:
        read_record(path)
    except UserError as error:
        return str(error)
    return None
