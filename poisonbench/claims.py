"""Who works on what: a lock file per cell, which the system releases when its owner dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def claimed(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock ``path``; calls ``on_wait`` and waits for a living owner, and takes over from a dead one.

    Raises:
        OSError: when the file cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # removed while it is held: a waiter notices and makes a new one
            path.unlink()
        lock.release()


def is_claimed(path: Path) -> bool:
    """Whether a living process holds the lock; a file that a dead one left says nothing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
