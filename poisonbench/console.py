"""Live progress on standard error: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from poisonbench.attempt import Verdict, Watch
from poisonbench.cell import Cell
from poisonbench.progress import Progress
from poisonbench.records import Record
from poisonbench.words import duration, speed

QUIET_SECONDS = 10.0
"""Between two lines about one cell, where there is no terminal."""

Clock = Callable[[], float]


@contextmanager
def open_board(total: int, quiet: bool = False) -> Iterator[Watch]:
    """Something to watch ``total`` cells with: silent, live, or line by line, as it fits standard error."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield QuietBoard()
    elif console.is_terminal:
        with bars_on(console) as bars:
            yield LiveBoard(total, console, bars)
    else:
        yield PlainBoard(total, _say)


@dataclass
class Meter:
    """How fast a phase goes, and how long it and its likes will last.

    A phase that is called "... N of M" is taken as one of M equal ones.
    """

    clock: Clock = time.monotonic
    name: str = ""
    total: int = 0
    unit: str = "pairs"
    done: int = 0
    started: float = field(default=0.0)

    def phase(self, name: str, total: int, unit: str) -> None:
        """A new phase begins."""
        self.name, self.total, self.unit, self.done, self.started = name, total, unit, 0, self.clock()

    @property
    def speed(self) -> float:
        """Units per second of this phase so far; 0 if nothing is known."""
        elapsed = self.clock() - self.started
        return self.done / elapsed if elapsed > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until this phase and the equal ones after it are over, or None if that is not known."""
        if not (self.speed and self.total):
            return None
        numbers = re.search(r"(\d+) of (\d+)$", self.name)
        more = max(0, int(numbers[2]) - int(numbers[1])) if numbers else 0
        return (self.total - self.done + more * self.total) / self.speed

    @property
    def pace(self) -> str:
        """Speed and time left in words, as far as they are known."""
        parts = [speed(self.speed, self.unit)] if self.speed else []
        parts += [f"{duration(self.left)} left"] if self.left is not None else []
        return ", ".join(parts)


class Board(Watch):
    """What both kinds of display have in common: one line per finished cell."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._ended = 0
        self._began: dict[str, float] = {}

    def expect(self, total: int) -> None:
        """Count up to so many."""
        self.total = total

    def say(self, line: str) -> None:
        """Show a line that stays."""
        raise NotImplementedError

    def begin(self, cell: Cell) -> Progress:
        """Start the cell's clock and its display."""
        self._began[cell.folder] = time.monotonic()
        return self._display("" if self.total == 1 else label(cell))

    def end(self, cell: Cell, verdict: Verdict, record: Record | None) -> None:
        """One line, except for a refused cell: what is wrong with it is said once, at the end."""
        self._ended += 1
        if verdict.word == "refused":
            return
        count = f"[{self._ended}/{self.total}] " if self.total > 1 else ""
        began = self._began.get(cell.folder)
        spent = (
            f" in {duration(time.monotonic() - began)}"
            if began is not None and verdict.word == "done"
            else ""
        )
        self.say(f"{count}{label(cell)}: {verdict.word}{spent}{_gist(verdict, record)}")

    def refused(self, cell: Cell, reason: str) -> None:
        """One line."""
        self.say(_not_run(cell, reason))

    def _display(self, prefix: str) -> Progress:
        raise NotImplementedError


class QuietBoard(Watch):
    """Nothing but why an asked-for cell has no record."""

    def refused(self, cell: Cell, reason: str) -> None:
        """One line."""
        _say(_not_run(cell, reason))


class PlainBoard(Board):
    """Lines, at most one per cell and ten seconds besides what is worth keeping."""

    def __init__(self, total: int, say: Callable[[str], None], clock: Clock = time.monotonic) -> None:
        super().__init__(total)
        self._say, self._clock = say, clock

    def say(self, line: str) -> None:
        """Show a line."""
        self._say(line)

    def _display(self, prefix: str) -> Progress:
        return Lines(prefix, self._say, Meter(self._clock))


class Lines(Progress):
    """One cell's progress as lines."""

    def __init__(self, prefix: str, say: Callable[[str], None], meter: Meter) -> None:
        self._prefix, self._say, self._meter = prefix, say, meter
        self._next = float("-inf")

    def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
        """A line, if the last one is old enough."""
        self._meter.phase(name, total, unit)
        self._tell()

    def advance(self, done: int) -> None:
        """A line, if the last one is old enough."""
        self._meter.done = done
        self._tell()

    def note(self, text: str) -> None:
        """A line for the only cell; in a grid notes are left to the record's log."""
        if not self._prefix:
            self._say(text)

    def _tell(self) -> None:
        now = self._meter.clock()
        if now < self._next:
            return
        self._next = now + QUIET_SECONDS
        meter = self._meter
        share = f": {meter.done / meter.total:.0%}" if meter.total and meter.done else ""
        start = f"{self._prefix}: " if self._prefix else ""
        self._say(f"{start}{meter.name}{share}" + (f", {meter.pace}" if meter.pace else ""))


class LiveBoard(Board):
    """One bar per running cell, finished cells above."""

    def __init__(self, total: int, console: Console, bars: Bars) -> None:
        super().__init__(total)
        self._console, self._bars = console, bars
        self._tasks: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        """Show a line above the bars."""
        self._console.print(line, markup=False, soft_wrap=True)

    def begin(self, cell: Cell) -> Progress:
        """Start the cell's clock and its bar."""
        progress = super().begin(cell)
        assert isinstance(progress, Bar)
        self._tasks[cell.folder] = progress.task
        return progress

    def end(self, cell: Cell, verdict: Verdict, record: Record | None) -> None:
        """The bar goes, a line stays."""
        if (task := self._tasks.pop(cell.folder, None)) is not None:
            self._bars.remove_task(task)
        super().end(cell, verdict, record)

    def _display(self, prefix: str) -> Progress:
        return Bar(prefix, self._bars, self.say)


class Bar(Progress):
    """One cell's progress as a bar."""

    def __init__(self, prefix: str, bars: Bars, say: Callable[[str], None]) -> None:
        self._prefix, self._bars, self._say = prefix, bars, say
        self._meter = Meter()
        self.task = bars.add_task(prefix or "starting", total=None, pace="")

    def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
        """The bar starts again under a new name."""
        self._meter.phase(name, total, unit)
        title = f"{self._prefix}  {name}" if self._prefix else name
        self._bars.reset(self.task, total=total or None, description=title, pace="")

    def advance(self, done: int) -> None:
        """The bar grows."""
        self._meter.done = done
        self._bars.update(self.task, completed=done, pace=self._meter.pace)

    def note(self, text: str) -> None:
        """A line for the only cell; in a grid notes are left to the record's log."""
        if not self._prefix:
            self._say(text)


def label(cell: Cell) -> str:
    """A cell in a few words."""
    return f"{cell.attack.full_name} × {cell.defense.full_name}, {cell.tier.name}, seed {cell.seed}"


def bars_on(console: Console) -> Bars:
    """Bars with a phase, a share, a speed and the time left; they vanish when they are done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[pace]}", style="cyan", markup=False),
    )
    return Bars(*columns, console=console, transient=True)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _not_run(cell: Cell, reason: str) -> str:
    return f"{label(cell)}: not run: {reason}"


def _gist(verdict: Verdict, record: Record | None) -> str:
    if verdict.word == "failed":
        return f": {verdict.reason}"
    parts = [f"attack success {record.asr.value:.1%}"] if record and record.asr else []
    if record and (shot := record.zero_shot.get(record.headline)):
        parts.append(f"zero-shot {shot.top1:.1%}")
    return f", {', '.join(parts)}" if parts else ""
