"""``poisonbench status``: which cells are done, running, failed or left, and how long they will take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cell_fakes import cells, keep, stored
from click.testing import CliRunner

from poisonbench.cell import Cell
from poisonbench.cli import cli
from poisonbench.plan import PULSE_SECONDS, Beating, Plan, Pulse
from poisonbench.progress import Progress
from poisonbench.records import Stored
from poisonbench.status import Status, status_lines, status_of
from poisonbench.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    store.root.mkdir()
    return store


def took(cell: Cell, seconds: float) -> Stored:
    record = stored(cell)
    assert record.cost is not None
    return record.model_copy(update={"cost": record.cost.model_copy(update={"total_seconds": seconds})})


def pulse_at(
    store: Store, cell: Cell, share: float, begun: float = 0.0, now: float = 1000.0, **changes: Any
) -> None:
    """The cell was taken up 100 seconds ago."""
    progress = store.plan.beating(cell, Progress())
    assert isinstance(progress, Beating)
    pulse = Pulse(
        phase="training, epoch 3 of 4",
        training="training",
        share=share,
        begun=begun,
        started=now - 100,
        spent=75,
        written=now,
    )
    progress._leave(pulse.model_copy(update=changes))


def seeds(found: Status) -> dict[str, list[int]]:
    names = ("done", "running", "failed", "left")
    return {name: [one.seed for one in getattr(found, name)] for name in names}


def test_every_cell_that_was_run_or_asked_for_is_in_one_list(store: Store) -> None:
    grid = cells(seeds=(0, 1, 2, 3))
    store.plan.ask(grid)
    keep(store, grid[0], stored(grid[0]))
    keep(store, grid[1], stored(grid[1], failure="it broke"))
    with store.claimed(grid[2]):
        found = status_of(store)
    assert seeds(found) == {"done": [0], "running": [2], "failed": [1], "left": [3]}
    assert found.failed[0].reason == "it broke" and found.done[0].seconds == 6


def test_a_dead_runner_is_not_running(store: Store) -> None:
    [cell] = cells()
    store.plan.ask([cell])
    (store.root / f".{cell.folder}.lock").touch()
    assert seeds(status_of(store))["left"] == [0]


def test_looking_changes_nothing(store: Store) -> None:
    [cell] = cells()
    store.plan.ask([cell])
    before = sorted(store.root.iterdir())
    status_of(store)
    assert sorted(store.root.iterdir()) == before


def test_a_running_cell_takes_as_long_as_its_own_speed_says(store: Store) -> None:
    [cell] = cells()
    store.plan.ask([cell])
    pulse_at(store, cell, share=0.6, begun=0.4)
    with store.claimed(cell):
        [running] = status_of(store, now=1000).running
        assert running.seconds_left == pytest.approx(200), "a fifth took 100 seconds"
        assert status_of(store, now=1050).running[0].seconds_left == pytest.approx(150)


def test_cells_take_as_long_as_their_like_did(store: Store) -> None:
    done, other, *left = cells(defenses=("none", "augment_only"), seeds=(0,)) + cells(
        defenses=("none", "augment_only", "roclip"), seeds=(1,)
    )
    keep(store, done, took(done, 100))
    keep(store, other, took(other, 300))
    store.plan.ask(left)
    found = status_of(store)
    assert {one.defense: one.seconds_left for one in found.left} == {
        "none": 100,
        "augment_only": 300,
        "roclip": 200,
    }
    assert found.seconds_left == 600
    with store.claimed(left[0]), store.claimed(left[1]):
        assert status_of(store).seconds_left == 300, "two at a time"


def test_what_an_interrupted_cell_has_done_need_not_be_done_again(store: Store) -> None:
    done, left = cells(seeds=(0, 1))
    keep(store, done, took(done, 100))
    store.plan.ask([left])
    pulse_at(store, left, share=0.75)
    assert status_of(store).left[0].seconds_left == 25


@pytest.mark.parametrize(
    ("phase", "training", "share", "left"),
    [
        ("training, epoch 3 of 4", "training", 0.5, 100),
        ("the defence's own model, epoch 3 of 4", "the defence's own model", 0.5, 325),
        ("repair lr 0.1, epoch 3 of 4", "repair lr 0.1", 0.2, 400),
        ("evaluating", "training", 1.0, 325),
    ],
)
def test_a_cell_of_several_trainings_is_not_done_with_the_first(
    store: Store, phase: str, training: str, share: float, left: float
) -> None:
    done, running = cells(seeds=(0, 1))
    keep(store, done, took(done, 400))
    store.plan.ask([running])
    pulse_at(store, running, share, phase=phase, training=training)
    with store.claimed(running):
        assert status_of(store, now=1000).running[0].seconds_left == pytest.approx(left)


def test_a_taken_up_cell_counts_what_it_spent_before(store: Store) -> None:
    [cell] = cells()
    pulse_at(store, cell, share=0.5)
    store.plan.beating(cell, Progress()).phase("evaluating")
    again = store.plan.pulse(cell)
    assert again is not None and again.spent == pytest.approx(75, abs=1)


def test_every_training_of_a_cell_has_a_speed_of_its_own() -> None:
    pulses: list[Pulse] = []
    now = [0.0]
    beating = Beating(Progress(), pulses.append, lambda: now[0])
    for name in ("one", "two"):
        for epoch in (1, 2):
            beating.phase(f"{name}, epoch {epoch} of 2", 10)
            now[0] += 100
    beating.phase("evaluating")
    assert [(pulse.share, pulse.started) for pulse in pulses] == [
        (0, 0),
        (0.5, 0),
        (0, 200),
        (0.5, 200),
        (0.5, 200),
    ]
    assert pulses[-1].spent == 400


def test_without_a_finished_cell_nothing_is_promised(store: Store) -> None:
    store.plan.ask(cells())
    found = status_of(store)
    assert found.left[0].seconds_left is None and found.seconds_left is None


def test_a_damaged_ticket_or_pulse_is_passed_over(store: Store) -> None:
    first, second = cells(seeds=(0, 1))
    store.plan.ask([first, second])
    for path in store.root.glob("*.asked"):
        if "--s0--" in path.name:
            path.write_text("{")
    (store.root / f".{second.folder}.pulse").write_text("{}")
    assert seeds(status_of(store))["left"] == [1]


def test_pulses_come_now_and_then_and_pass_everything_on(tmp_path: Path) -> None:
    heard: list[tuple[object, ...]] = []
    pulses: list[Pulse] = []
    now = [100.0]

    class Shown(Progress):
        def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
            heard.append((name, total, unit))

        def advance(self, done: int) -> None:
            heard.append((done,))

        def note(self, text: str) -> None:
            heard.append((text,))

    beating = Beating(Shown(), pulses.append, lambda: now[0])
    beating.phase("training, epoch 3 of 4", 50)
    for done in (10, 20, 30):
        beating.advance(done)
        now[0] += PULSE_SECONDS / 2
    beating.note("fine")
    assert heard == [("training, epoch 3 of 4", 50, "pairs"), (10,), (20,), (30,), ("fine",)]
    assert [pulse.share for pulse in pulses] == [0.5, (2 + 30 / 50) / 4]
    assert {(pulse.begun, pulse.started) for pulse in pulses} == {(0.5, 100.0)}


def test_a_pulse_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    [cell] = cells()
    Plan(tmp_path / "gone").beating(cell, Progress()).phase("training, epoch 1 of 2", 10)
    assert not (tmp_path / "gone").exists()


def test_on_the_command_line(store: Store) -> None:
    done, failed, left = cells(seeds=(0, 1, 2))
    keep(store, done, took(done, 90))
    keep(store, failed, stored(failed, failure="it broke"))
    store.plan.ask([left])
    shown = CliRunner().invoke(cli, ["status", "--out", str(store.root)]).stdout.splitlines()
    assert shown == [
        "failed   backdoor_badnet × none, smoke, seed 1: it broke",
        "left     backdoor_badnet × none, smoke, seed 2, 2m to go",
        "1 done, 0 running, 1 failed, 1 left, 2m to go",
    ]
    values = json.loads(CliRunner().invoke(cli, ["status", "--out", str(store.root), "--json"]).stdout)
    assert [len(values[name]) for name in ("done", "running", "failed", "left")] == [1, 0, 1, 1]
    assert values["left"][0]["seconds_left"] == 90
    assert list(status_lines(Status())) == ["0 done, 0 running, 0 failed, 0 left"]


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["status", "--out", str(tmp_path / "no")])
    assert result.exit_code == 2 and result.stderr.startswith("poisonbench: error: --out ")
