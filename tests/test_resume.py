"""Real grids that are killed at any moment, or run by two at once: nothing is lost, repeated or different."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import cell_fakes as fakes
import pytest
from lives import drawn, kill, life, result, warm_up

from poisonbench.cell import Cell
from poisonbench.desk import Desk
from poisonbench.progress import Progress
from poisonbench.records import Stored
from poisonbench.resolve import Request, resolve
from poisonbench.status import status_of
from poisonbench.store import Store

RECIPE = {"recipe.epochs": 6, "recipe.batch": 32}
"""Twenty-four steps."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return drawn(tmp_path_factory.mktemp("data"))


def small(data: dict[str, Any], *defenses: str) -> list[Cell]:
    return resolve(Request(("backdoor_badnet",), defenses, "smoke", (0,), data | RECIPE, device="cpu"))


def undisturbed(cells: list[Cell], store: Store, workers: int) -> float:
    """Run ``cells`` without a kill; returns the seconds that it took."""
    warm_up()
    started = time.monotonic()
    with life(cells, store, workers) as process:
        process.join()
    assert process.exitcode == 0
    return time.monotonic() - started


def killed(cells: list[Cell], folder: Path, workers: int, kills: int, seconds: float) -> list[Store]:
    """Run ``cells`` again and again, killed at random moments; a grid that ends before that begins in a new folder."""
    stores, moments = [Store(folder / "0")], random.Random(f"{kills} moments")
    while kills:
        with life(cells, stores[-1], workers) as process:
            process.join(moments.uniform(0, seconds))
            if process.is_alive():
                kills -= 1
                kill(process)
            else:
                assert process.exitcode == 0
                stores.append(Store(folder / str(len(stores))))
    undisturbed(cells, stores[-1], workers)
    return stores


@pytest.mark.parametrize(
    ("defenses", "workers", "kills"),
    [(("roclip",), 1, 17), (("none", "roclip"), 2, 3)],
    ids=["in one process", "with two workers"],
)
def test_a_grid_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(
    tmp_path: Path, data: dict[str, Any], defenses: tuple[str, ...], workers: int, kills: int
) -> None:
    cells, whole = small(data, *defenses), Store(tmp_path / "whole")
    seconds = undisturbed(cells, whole, workers)
    for store in killed(cells, tmp_path, workers, kills, seconds):
        for cell in cells:
            assert result(store, cell) == result(whole, cell)
        left = {path.name for path in store.root.iterdir()} - {".poisons"}
        assert left == {cell.folder for cell in cells}, "checkpoints, tickets and locks are gone"


def test_a_killed_cell_is_left_and_goes_on_from_its_checkpoint(tmp_path: Path, data: dict[str, Any]) -> None:
    [cell], store = small(data, "none"), Store(tmp_path / "runs")
    with life([cell], store) as process:
        while not list(store.root.glob(".*.checkpoints/training/00000003.json")):
            time.sleep(0.01)
            assert process.is_alive()
        assert [one.folder for one in status_of(store).running] == [cell.folder]
        kill(process)
    assert [one.folder for one in status_of(store).left] == [cell.folder]
    undisturbed([cell], store, 1)
    assert any("continued from a checkpoint" in line for line in store.need(cell).log)


def test_a_damaged_checkpoint_is_named_in_the_record(tmp_path: Path, data: dict[str, Any]) -> None:
    [cell], store = small(data, "none"), Store(tmp_path / "runs")
    with life([cell], store) as process:
        while not list(store.root.glob(".*.checkpoints/training/00000004.json")):
            time.sleep(0.01)
            assert process.is_alive()
        kill(process)
    last = sorted(store.root.glob(".*.checkpoints/training/*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:5000])
    undisturbed([cell], store, 1)
    log = store.need(cell).log
    assert any("refused" in line and f"{last.stem}.json" in line for line in log)
    assert any("continued from a checkpoint" in line for line in log)


def slow_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    """Leaves a mark for every run of a cell beside the runs folder."""
    marks = desk.folder.parent.parent / "marks"
    (marks / f"{cell.seed}-{time.monotonic_ns()}").touch()
    time.sleep(0.3)
    return fakes.good_trial(cell, desk, progress)


def test_two_runners_on_one_folder_share_the_cells(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    cells, store = fakes.cells(seeds=tuple(range(4))), Store(tmp_path / "runs")
    with life(cells, store, 2, slow_trial) as one, life(cells, store, 2, slow_trial) as other:
        one.join()
        other.join()
    assert (one.exitcode, other.exitcode) == (0, 0)
    runs = sorted(path.name.partition("-")[0] for path in (tmp_path / "marks").iterdir())
    assert runs == ["0", "1", "2", "3"], "every cell was run once"
    assert {path.name for path in store.root.iterdir()} == {cell.folder for cell in cells}
    assert len(status_of(store).done) == 4


def endless_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    (desk.folder / "begun").touch()
    time.sleep(600)
    return fakes.good_trial(cell, desk, progress)


def test_the_lock_of_a_dead_runner_is_taken_over(tmp_path: Path) -> None:
    [cell], store = fakes.cells(), Store(tmp_path / "runs")
    with life([cell], store, 1, endless_trial) as first:
        while not list(store.root.glob(".*.part/begun")):
            time.sleep(0.01)
        with life([cell], store, 1, fakes.good_trial) as second:
            second.join(0.5)
            assert second.is_alive(), "it waits for the first"
            kill(first)
            second.join(60)
            assert second.exitcode == 0
    assert store.need(cell).status == "done"
