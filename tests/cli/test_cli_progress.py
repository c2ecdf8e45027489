"""What a person sees while cells run."""

from __future__ import annotations

import io
from pathlib import Path

from cell_fakes import cells, stored
from rich.console import Console

from poisonbench.attempt import Verdict
from poisonbench.console import LiveBoard, Meter, PlainBoard, bars_on
from poisonbench.records import Record
from poisonbench.tables import show_records
from poisonbench.words import duration, speed


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_left_counts_the_epochs_to_come() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.phase("training, epoch 2 of 4", 1000, "pairs")
    assert meter.left is None and meter.pace == ""
    clock.now += 5
    meter.done = 500
    assert meter.speed == 100
    assert meter.left == (500 + 2 * 1000) / 100
    assert meter.pace == "100 pairs/s, 25s left"


def test_a_phase_without_a_total_shows_no_time_left() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.phase("opening the data", 0, "pairs")
    clock.now += 5
    meter.done = 500
    assert meter.left is None and meter.pace == "100 pairs/s"


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59, 60, 192, 7500)] == ["0s", "59s", "1m00s", "3m12s", "2h05m"]


def test_slow_training_has_a_speed_too() -> None:
    assert [speed(s, "pairs") for s in (0.317, 4, 9.96, 12.4, 2000)] == [
        "0.32 pairs/s", "4 pairs/s", "10 pairs/s", "12 pairs/s", "2,000 pairs/s",
    ]  # fmt: skip


def test_without_a_terminal_lines_come_every_ten_seconds_at_most() -> None:
    clock, lines = Clock(), list[str]()
    progress = PlainBoard(1, lines.append, clock).begin(cells()[0])
    progress.phase("training, epoch 1 of 2", 1000)
    for _ in range(25):
        clock.now += 1
        progress.advance(40)
    assert lines == [
        "training, epoch 1 of 2",
        "training, epoch 1 of 2: 4%, 4 pairs/s, 8m10s left",
        "training, epoch 1 of 2: 4%, 2 pairs/s, 16m20s left",
    ]
    progress.note("epoch 1, loss 4.2")
    assert lines[-1] == "epoch 1, loss 4.2"


def test_a_grid_has_one_line_per_finished_cell() -> None:
    first, second, third = cells(seeds=(0, 1, 2))
    lines = list[str]()
    board = PlainBoard(3, lines.append)
    board.begin(first).note("kept for the record alone")
    board.end(first, Verdict("done"), _record(first))
    board.end(second, Verdict("failed", "out of memory"), None)
    board.end(third, Verdict("refused", "no such class"), None)
    board.refused(third, "no such class")
    assert lines == [
        "[1/3] backdoor_badnet × none, smoke, seed 0: done in 0s, attack success 90.0%, zero-shot 50.0%",
        "[2/3] backdoor_badnet × none, smoke, seed 1: failed: out of memory",
        "backdoor_badnet × none, smoke, seed 2: not run: no such class",
    ]


def test_on_a_terminal_a_bar_moves_and_goes() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, highlight=False)
    with bars_on(console) as bars:
        board = LiveBoard(1, console, bars)
        progress = board.begin(cells()[0])
        progress.phase("training, epoch 1 of 2", 1000)
        progress.advance(500)
        bars.refresh()
        assert [(task.completed, task.total) for task in bars.tasks] == [(500, 1000)]
        assert "pairs/s" in screen.getvalue() and "left" in screen.getvalue()
        progress.note("[bold] is no markup")
        board.end(cells()[0], Verdict("done"), _record(cells()[0]))
        assert not bars.tasks
    assert "[bold] is no markup" in screen.getvalue()
    assert "attack success 90.0%" in screen.getvalue()


def test_the_table_of_one_cell_has_every_number() -> None:
    [cell] = cells()
    text = _shown(_record(cell))
    numbers = (
        "90.0% (90 of 100; 95% 80.0–100.0%)",
        "10.0% (10 of 100)",
        "50.0% (45.0–55.0%), top-5 75.0%, n=400",
        "60.0% (55.0–65.0%), untrained 30.0%",
        "10.0% / 30.0% / 50.0%, n=100",
        "100 (5.00% of the pairs)",
        "12 (12%)",
        "3.0 s (2,000 pairs/s)",
        "1.00 GB",
        "run the same with --defense none",
        "record: a/record.json",
    )
    for number in numbers:
        assert number in text
    assert "yes: it works undefended" in _shown(_record(cell, valid=True))


def test_the_table_of_a_failed_cell_says_why() -> None:
    [cell] = cells()
    text = _shown(Record(**dict(stored(cell, failure="the loss is not finite", log=("train.py:3",)))))
    assert "the loss is not finite (step 7)" in text and "train.py:3" in text


def _record(cell: object, valid: bool | None = None) -> Record:
    return Record(**dict(stored(cell)), valid=valid)  # type: ignore[arg-type]


def _shown(record: Record) -> str:
    screen = io.StringIO()
    show_records([(record, Path("a/record.json"))], Console(file=screen, width=100))
    return screen.getvalue()
