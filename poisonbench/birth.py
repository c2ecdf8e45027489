"""What a process of the grid must be born with."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from poisonbench.cell import Cell

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


@contextmanager
def born(cell: Cell, seat: int, hidden: bool) -> Iterator[None]:
    """While this is open, a process may be started for ``cell``.

    It gets its number of threads before it imports torch, and one GPU of those that there are. It is deaf to Ctrl-C: the parent
    hears that, and stops the processes in order.

    Args:
        cell: what it will run.
        seat: a number that no other running process has.
        hidden: keep the caller's script from it, which it would run a second time.
    """
    surroundings = {"OMP_NUM_THREADS": str(cell.tier.recipe.threads)}
    if cell.device != "cpu" and (gpus := _gpus()):
        surroundings[VISIBLE_GPUS] = gpus[seat % len(gpus)]
    with _environment(surroundings), _deaf(), _script_hidden(hidden):
        yield


def _gpus() -> list[str]:
    """The GPUs that this process may use, as the environment calls them."""
    if VISIBLE_GPUS in os.environ:
        return [name.strip() for name in os.environ[VISIBLE_GPUS].split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say how signals are heard
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _script_hidden(hidden: bool) -> Iterator[None]:
    """Multiprocessing would import the caller's script anew in every process, by its name or its file."""
    script = vars(sys.modules["__main__"])
    told: dict[str, Any] = {
        name: script[name] for name in ("__spec__", "__file__") if hidden and name in script
    }
    script.update(dict.fromkeys(told))
    try:
        yield
    finally:
        script.update(told)
