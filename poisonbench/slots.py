"""Where the unfinished work of a cell is kept: a slot for every piece of it that can be taken up again.

A piece is the training, a finished curation, or a candidate of a repair. A slot keeps its last two checkpoints, the older
one for the case that the newer is damaged.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from poisonbench.checkpoint import TENSORS, Refused, Saved, Work, read, seconds_spent, write
from poisonbench.durable import DRAFT
from poisonbench.errors import UserError

KEPT = 2
SECONDS = "POISONBENCH_CHECKPOINT_SECONDS"
"""Environment variable: seconds between two checkpoints within an epoch; 0 makes one after every step."""

DEFAULT_SECONDS = 600.0
Say = Callable[[str], None]


def interval() -> float:
    """Seconds between two checkpoints within an epoch.

    Raises:
        UserError: when the environment says something else than a number of seconds.
    """
    text = os.environ.get(SECONDS, "") or str(DEFAULT_SECONDS)
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise UserError(f"{SECONDS}={text}: write seconds between two checkpoints, for example 600")
    return float(text)


@dataclass(frozen=True)
class Slot:
    """The checkpoints of one piece of work.

    Attributes:
        folder: where they are; made by the first one.
        cell: the cell's slots, which know its identity and count its seconds.
    """

    folder: Path
    cell: Checkpoints

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], about: str = "") -> None:
        """Add a checkpoint and remove all but the last two.

        Raises:
            OSError: when it cannot be written; the earlier ones are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = self._numbers()
        path = self._path(numbers[0] + 1 if numbers else 1)
        write(path, tensors, state, Work(self.cell.identity, about), self.cell.spent)
        self._tidy(self._numbers()[:KEPT])

    def load(self, about: str = "", say: Say = lambda _: None) -> Saved | None:
        """The last good checkpoint, or None; ``say`` is told of every one that is refused."""
        self._tidy(self._numbers())
        for number in self._numbers():
            path = self._path(number)
            try:
                return read(path, Work(self.cell.identity, about))
            except Refused as error:
                say(f"checkpoint {path} is refused: {error}; the one before it is used, if there is one")
                path.unlink(missing_ok=True)
        return None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.json"

    def _numbers(self) -> list[int]:
        """The numbers of the checkpoints, last first."""
        found = (path.stem for path in self.folder.glob("*.json"))
        return sorted((int(stem) for stem in found if stem.isdecimal()), reverse=True)

    def _tidy(self, kept: list[int]) -> None:
        """Remove everything but some checkpoints: older ones, and what a killed process left half written."""
        names = {self._path(number).with_suffix(end).name for number in kept for end in (".json", TENSORS)}
        for path in self.folder.glob("*"):
            if path.name not in names or path.name.startswith(DRAFT):
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Checkpoints:
    """All slots of a cell, or of one stage of it.

    Attributes:
        folder: where the slots are, or None to keep no checkpoints.
        identity: of the cell and its data; checkpoints of another are refused.
        every: seconds between two checkpoints within an epoch.
        earlier: seconds of work that killed processes had put into the cell by their last checkpoint.
        started: when this process began, by ``time.perf_counter``.
    """

    folder: Path | None = None
    identity: str = ""
    every: float = DEFAULT_SECONDS
    earlier: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    _calls: Iterator[int] = field(default_factory=lambda: count(1))

    @classmethod
    def found(cls, folder: Path | None, identity: str) -> Checkpoints:
        """The checkpoints in ``folder``, where an earlier process may have left some."""
        paths = folder.rglob("*.json") if folder else ()
        earlier = max((seconds_spent(path, identity) for path in paths), default=0.0)
        return cls(folder, identity, interval(), earlier)

    def slot(self, name: str) -> Slot | None:
        """The slot of that name, for work that has one."""
        return Slot(self.folder / _file_name(name), self) if self.folder else None

    def following(self) -> Slot | None:
        """The next slot by the order of calls, for work without a name of its own."""
        return self.slot(str(next(self._calls)))

    def within(self, stage: str) -> Checkpoints:
        """The slots of a stage, which counts its own calls: a stage that is not repeated shifts no other's count."""
        return replace(self, folder=self.folder and self.folder / _file_name(stage), _calls=count(1))

    def drop(self) -> None:
        """Remove them all: the work is done and its result kept elsewhere."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def spent(self) -> float:
        """Seconds of work on the cell, in all processes."""
        return self.earlier + time.perf_counter() - self.started


def _file_name(name: str) -> str:
    """``name`` if it can name a folder, else what of it can, told apart by a hash."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-")[:60]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
