"""What a process of the grid is born with, and what it is spared."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cell_fakes import cells

from poisonbench.birth import VISIBLE_GPUS, born

SCRIPT = """
from pathlib import Path
from cell_fakes import cells, good_trial
from poisonbench.attempt import Watch
from poisonbench.grid import run_grid
from poisonbench.store import Store

print("the script runs")
print("status", run_grid(cells(seeds=(0, 1)), Store(Path("runs")), Watch(), trial=good_trial))
"""


@pytest.mark.parametrize("by_name", [True, False])
def test_a_script_without_a_guard_is_run_once(tmp_path: Path, by_name: bool) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *(["script.py"] if by_name else ["-"])],
        input=SCRIPT,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=False,
    )
    assert done.stdout.splitlines() == ["the script runs", "status 0"], done.stderr


def test_every_process_has_a_gpu_of_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE_GPUS, "3, GPU-abc")
    [cell] = cells()
    seen = []
    for seat in range(3):
        with born(cell.model_copy(update={"device": "cuda"}), seat, hidden=True):
            seen.append(os.environ[VISIBLE_GPUS])
    assert seen == ["3", "GPU-abc", "3"]
    assert os.environ[VISIBLE_GPUS] == "3, GPU-abc"
    with born(cell, 0, hidden=True):
        assert os.environ[VISIBLE_GPUS] == "3, GPU-abc", "a cell on the CPU has no need of one"


def test_threads_are_set_for_the_process_and_not_for_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    [cell] = cells()
    with born(cell, 0, hidden=True):
        assert os.environ["OMP_NUM_THREADS"] == str(cell.tier.recipe.threads)
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_process_may_be_started_from_any_thread() -> None:
    [cell] = cells()
    through = []

    def start() -> None:
        with born(cell, 0, hidden=True):
            through.append(True)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert through == [True]
