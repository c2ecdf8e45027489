"""Files that are there whole or not at all, even if the power fails or the disk is full."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DRAFT = ".draft-"
"""Begins the name of a file that is being written; one that stays was left by a killed process."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft to be filled; afterwards ``path`` holds all of it, or on any error what it held before."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=DRAFT)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        _sync(draft)
        draft.chmod(0o644)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` holds all of it or what it held before, even if the power fails."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def put_in_place(folder: Path, place: Path) -> None:
    """Rename a folder of finished files to ``place``, whole even if the power fails."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)
    folder.rename(place)
    _sync(place.parent)


def draft_of(path: Path) -> Path:
    """Where ``write_loosely`` writes first: a name of its own, so that what a killed process left can be found."""
    return path.with_name(f"{DRAFT}{path.name.lstrip('.')}")


def write_loosely(path: Path, text: str) -> None:
    """Write ``text`` where a reader must not see half of it, but nothing is lost if it is not written at all."""
    draft = draft_of(path)
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()


def disk_is_full(error: Exception) -> bool:
    """Whether ``error`` says that no space is left; some writers say it only in words."""
    return (isinstance(error, OSError) and error.errno in FULL) or os.strerror(errno.ENOSPC) in str(error)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
