"""What a running cell tells the person who waits for it."""

from __future__ import annotations


class Progress:
    """Receives what a cell does now; this base class stays silent, subclasses show it."""

    def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
        """A new phase begins (for example "training, epoch 3 of 16"), with ``total`` units of work if known."""

    def advance(self, done: int) -> None:
        """``done`` units of the phase's total are finished."""

    def note(self, text: str) -> None:
        """A line worth keeping (a skipped row, an epoch's loss); it also goes into the record's log."""


class Journal(Progress):
    """Passes everything on to the person who waits, and keeps the notes for the record."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self.notes: list[str] = []

    def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
        """Pass on."""
        self._shown.phase(name, total, unit)

    def advance(self, done: int) -> None:
        """Pass on."""
        self._shown.advance(done)

    def note(self, text: str) -> None:
        """Pass on and keep."""
        self.notes.append(text)
        self._shown.note(text)
