"""What a folder of runs has been asked for and how far it is: small files beside the records.

A ticket says that a cell was asked for; it is removed when the cell has ended. A pulse says how far a running cell is; it is
written now and then, and nothing depends on it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from poisonbench.cell import Cell
from poisonbench.durable import draft_of, write_loosely
from poisonbench.progress import Progress
from poisonbench.settings import Settings

PULSE_SECONDS = 2.0
ENDS = (".asked", ".pulse")
EPOCH = re.compile(r"(.*), epoch (\d+) of (\d+)")
"""The phase of a training: what it is called, and how far it is."""


class Pulse(Settings):
    """How far a running cell is.

    Attributes:
        phase: what it does.
        training: what its present training is called, or its last one; a cell may hold several.
        share: of that training that is done, in [0, 1].
        begun: the share at which this process took it up.
        started: when it did, seconds since 1970.
        spent: seconds of work on the cell so far, those of interrupted processes included.
        written: when this was written.
    """

    phase: str
    training: str = ""
    share: float
    begun: float
    started: float
    spent: float = 0.0
    written: float


class Plan:
    """The tickets and pulses under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def ask(self, cells: Iterable[Cell]) -> None:
        """Leave a ticket for every cell, as far as they can be written."""
        for cell in cells:
            write_loosely(self._path(cell, ".asked"), cell.model_dump_json())

    def asked(self) -> list[Cell]:
        """The cells with a ticket, by folder name; damaged tickets are left out."""
        found = []
        for path in sorted(self.root.glob(".*.asked")):
            try:
                found.append(Cell.model_validate_json(path.read_text(encoding="utf-8")))
            except (OSError, ValueError):
                continue
        return found

    def forget(self, cell: Cell) -> None:
        """Remove what is written about ``cell``: it has ended."""
        for path in (self._path(cell, end) for end in ENDS):
            path.unlink(missing_ok=True)
            draft_of(path).unlink(missing_ok=True)

    def pulse(self, cell: Cell) -> Pulse | None:
        """The last sign of life of ``cell``."""
        try:
            return Pulse.model_validate_json(self._path(cell, ".pulse").read_text(encoding="utf-8"))
        except (OSError, ValidationError, UnicodeDecodeError):
            return None

    def beating(self, cell: Cell, shown: Progress) -> Progress:
        """``shown``, which from now on also leaves pulses."""
        path, earlier = self._path(cell, ".pulse"), self.pulse(cell)
        spent = earlier.spent if earlier else 0.0
        return Beating(shown, lambda pulse: write_loosely(path, pulse.model_dump_json()), spent=spent)

    def _path(self, cell: Cell, end: str) -> Path:
        return self.root / f".{cell.folder}{end}"


class Beating(Progress):
    """Passes everything on, and now and then leaves a pulse."""

    def __init__(
        self,
        shown: Progress,
        leave: Callable[[Pulse], None],
        clock: Callable[[], float] = time.time,
        spent: float = 0.0,
    ) -> None:
        self._shown, self._leave, self._clock, self._earlier = shown, leave, clock, spent
        self._born = self._started = clock()
        self._next = 0.0
        self._phase, self._total = "", 0
        self._training, self._share, self._begun = "", 0.0, 0.0

    def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
        """Pass on."""
        self._phase, self._total = name, total
        self._beat(0)
        self._shown.phase(name, total, unit)

    def advance(self, done: int) -> None:
        """Pass on."""
        self._beat(done)
        self._shown.advance(done)

    def note(self, text: str) -> None:
        """Pass on."""
        self._shown.note(text)

    def _beat(self, done: int) -> None:
        now = self._clock()
        if numbers := EPOCH.fullmatch(self._phase):
            self._share = (int(numbers[2]) - 1 + done / max(1, self._total)) / int(numbers[3])
            if numbers[1] != self._training:
                self._training, self._begun, self._started = numbers[1], self._share, now
        if now >= self._next:
            self._next = now + PULSE_SECONDS
            self._leave(self._pulse(now))

    def _pulse(self, now: float) -> Pulse:
        return Pulse(
            phase=self._phase, training=self._training, share=self._share, begun=self._begun, started=self._started,
            spent=self._earlier + now - self._born, written=now,
        )  # fmt: skip
