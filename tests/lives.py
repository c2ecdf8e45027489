"""Processes that can be killed: real runs of a grid, each in a process group of its own."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from torchvision.transforms.functional import to_pil_image

from poisonbench.attempt import Trial, Watch, run_trial
from poisonbench.cell import Cell
from poisonbench.conformance.data import every, tiny_data
from poisonbench.grid import run_grid
from poisonbench.slots import SECONDS
from poisonbench.store import Store

CONTEXT = get_context("forkserver")
HEAVY = ("poisonbench.trial", "datasets", "open_clip", "pyarrow.parquet", "sklearn.linear_model", "timm")
CONTEXT.set_forkserver_preload([*HEAVY])


@contextmanager
def life(
    cells: Sequence[Cell], store: Store, workers: int = 1, trial: Trial = run_trial
) -> Iterator[BaseProcess]:
    """A process that runs ``cells``, and makes a checkpoint after every step."""
    texts = [cell.model_dump_json() for cell in cells]
    process = CONTEXT.Process(target=_live, args=(texts, str(store.root), workers, trial))
    process.start()
    try:
        yield process
    finally:
        kill(process)


def warm_up() -> None:
    """Let the imports that all lives share be over, so that the first life is no longer than the others."""
    process = CONTEXT.Process(target=int)
    process.start()
    process.join()


def kill(process: BaseProcess) -> None:
    """End the process and all that it has started, without a word of warning."""
    if process.is_alive() and process.pid:
        _wait_for_group(process)
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _wait_for_group(process: BaseProcess) -> None:
    """A process makes its group as its first act."""
    assert process.pid
    while process.is_alive() and os.getpgid(process.pid) != process.pid:
        time.sleep(0.01)


def _live(texts: list[str], root: str, workers: int, trial: Trial) -> None:
    os.setsid()
    os.environ[SECONDS] = "0"
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    cells = [Cell.model_validate_json(text) for text in texts]
    os._exit(run_grid(cells, Store(Path(root)), Watch(), workers, trial=trial))


def result(store: Store, cell: Cell) -> dict[str, Any]:
    """What must be the same however often a cell was killed: every number and every file of its folder."""
    record = store.need(cell).model_dump(exclude={"cost", "log"})
    for passing in ("finished", "commit"):  # the working tree may be edited while the test runs
        record["provenance"].pop(passing)
    files = sorted(path for path in store.folder(cell).iterdir() if path.name != "record.json")
    return record | {path.name: path.read_bytes() for path in files}


def drawn(folder: Path) -> dict[str, Any]:
    """Write a hundred and sixty tiny pairs and a task of four classes; returns the settings that use them."""
    data = tiny_data(wanted=("vegetable",))
    (folder / "pairs").mkdir(parents=True)
    rows = [(f"{row:03}.png", options[0]) for row, options in enumerate(data.train.captions)]
    for (name, _), image in zip(rows, every(data.train.images), strict=True):
        to_pil_image(image).save(folder / "pairs" / name)
    with (folder / "pairs" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *rows])
    task = data.headline
    for row, (label, image) in enumerate(zip(task.labels, every(task.images), strict=True)):
        place = folder / "task" / task.classes[label]
        place.mkdir(parents=True, exist_ok=True)
        to_pil_image(image).save(place / f"{row:03}.png")
    return {"data.source": str(folder / "pairs"), "data.evaluation": [f"folder:{folder / 'task'}"]}
