"""Cells per hour of a grid with one worker and with several, measured one after the other on the same cells.

    python benchmarks/grid.py --tier clipart --cells 4 --set recipe.epochs=2
    python benchmarks/grid.py --json

A cell is what ``poisonbench run`` makes of it: its own process, data, training, evaluation and record. Each worker computes on
one core (``recipe.threads``), so ``--workers`` should not exceed the cores that are free. The goal is at least 1.8 times one
worker's cells per hour for two workers on two cores.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import click

from poisonbench.arguments import parse_settings, split_names
from poisonbench.attempt import Watch
from poisonbench.cell import Cell
from poisonbench.errors import UserError
from poisonbench.grid import run_grid
from poisonbench.resolve import Request, resolve
from poisonbench.store import Store


class Pace(NamedTuple):
    """How fast a grid went.

    Attributes:
        workers: cells at a time.
        cells: that were done.
        seconds: wall-clock time.
    """

    workers: int
    cells: int
    seconds: float

    @property
    def per_hour(self) -> float:
        """Cells per hour."""
        return 3600 * self.cells / self.seconds


@click.command()
@click.option("--attack", default="backdoor_badnet", show_default=True, help="The attack of every cell.")
@click.option("--defense", default="none,roclip", show_default=True, help="Defences, in turn.")
@click.option("--tier", default="smoke", show_default=True, help="A tier.")
@click.option("--cells", "count", default=4, show_default=True, type=click.IntRange(2), help="Cells in all.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(2), help="Cells at a time.")
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Override a field of the cells."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def main(
    attack: str,
    defense: str,
    tier: str,
    count: int,
    workers: int,
    settings: Sequence[str],
    device: str,
    as_json: bool,
) -> None:
    """Measure cells per hour with one worker and with several."""
    names = split_names([defense])
    seeds = range(-(-count // len(names)))
    try:
        request = Request((attack,), names, tier, seeds, parse_settings(settings), device=device)
        cells = resolve(request)[:count]
        paces = [pace(cells, number) for number in (1, workers)]
    except UserError as error:
        raise click.ClickException(str(error)) from None
    gain = paces[1].per_hour / paces[0].per_hour
    click.echo(as_object(paces, gain) if as_json else as_table(paces, gain))


def pace(cells: Sequence[Cell], workers: int) -> Pace:
    """Run ``cells`` in an empty folder.

    Raises:
        UserError: when a cell could not be run.
        click.ClickException: when one failed, since then there is nothing to compare.
    """
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        status = run_grid(cells, Store(Path(folder)), Watch(), workers)
        seconds = time.perf_counter() - started
    if status:
        raise click.ClickException("a cell failed; run it with `poisonbench run` to see why")
    return Pace(workers, len(cells), seconds)


def as_object(paces: Sequence[Pace], gain: float) -> str:
    """The measurement as JSON."""
    rows = [one._asdict() | {"cells_per_hour": one.per_hour} for one in paces]
    return json.dumps({"cores": os.cpu_count(), "runs": rows, "times_one_worker": gain})


def as_table(paces: Sequence[Pace], gain: float) -> str:
    """The measurement for people."""
    rows = [f"{one.workers:7}  {one.cells:5}  {one.seconds:7.1f}  {one.per_hour:10.1f}" for one in paces]
    head = "workers  cells  seconds  cells/hour"
    return "\n".join(
        [head, *rows, f"{paces[1].workers} workers are {gain:.2f} times one, on {os.cpu_count()} cores"]
    )


if __name__ == "__main__":
    main()
