"""Many cells: what is left to do, in which order, in which process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from poisonbench.attempt import Trial, Verdict, Watch, finished, run_trial, settle
from poisonbench.cell import Cell
from poisonbench.errors import UserError
from poisonbench.store import Store
from poisonbench.twin import is_shared, twin_of
from poisonbench.validity import UNDEFENDED
from poisonbench.workers import in_processes


def run_grid(
    cells: Sequence[Cell],
    store: Store,
    watch: Watch,
    workers: int = 1,
    force: bool = False,
    trial: Trial = run_trial,
) -> int:
    """Run every cell that has no finished record yet.

    A cell that crashes gets a record that says why, and the rest goes on. One cell runs in this process;
    several run in a process each, so that peak memory is their own and a crash takes nothing else down. An undefended twin
    that a repair or a screening starts from is run as a cell of its own, before them.

    Args:
        cells: in any order; undefended ones are run first, since they decide whether the attack works at all.
        store: where the records go.
        watch: told about every cell.
        workers: cells at a time.
        force: run cells again that have a record.
        trial: runs one cell; replaced in tests.

    Returns:
        The exit status: 1 if any cell failed, else 0.

    Raises:
        UserError: when no cell could be run because of the user's mistake, or nothing can be written.
    """
    verdicts: list[tuple[Cell, Verdict]] = []
    done: list[Cell] = []
    left: list[Cell] = []
    for cell in cells:
        (done if not force and finished(store, cell) else left).append(cell)
    left = undefended_first([*left, *_twins(left, store)])
    watch.expect(len(done) + len(left))
    for cell in done:
        store.sweep(cell)
        verdicts.append((cell, Verdict("already done")))
        watch.end(*verdicts[-1], store.load(cell))
    with store.opened() if left else nullcontext():
        store.ask(left)
        for cell, verdict in _running(left, store, watch, workers, force, trial):
            verdicts.append((cell, verdict))
            watch.end(cell, verdict, None if verdict.word == "refused" else store.load(cell))
    _report_refusals(verdicts, {cell.folder for cell in cells}, watch)
    return int(any(verdict.word in ("failed", "refused") for _, verdict in verdicts))


def undefended_first(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, undefended ones before the others, else in their order."""
    return sorted(cells, key=lambda cell: cell.defense.name != UNDEFENDED)


def _twins(cells: Sequence[Cell], store: Store) -> list[Cell]:
    """The undefended twins of ``cells`` that are neither finished nor among them."""
    asked = {cell.folder for cell in cells}
    twins = {twin.folder: twin for cell in cells if (twin := twin_of(cell))}
    return [twin for name, twin in twins.items() if name not in asked and not _is_there(twin, store)]


def _is_there(twin: Cell, store: Store) -> bool:
    """Whether others can start from the twin; one whose record is damaged is run again, or said to need it."""
    try:
        return finished(store, twin) and is_shared(store.folder(twin))
    except UserError:
        return False


def _running(
    cells: Sequence[Cell], store: Store, watch: Watch, workers: int, force: bool, trial: Trial
) -> Iterator[tuple[Cell, Verdict]]:
    if len(cells) == 1 and workers == 1:
        yield cells[0], settle(cells[0], store, watch.begin(cells[0]), force, trial)
    elif cells:
        yield from in_processes(cells, store, watch, workers, force, trial)


def _report_refusals(verdicts: Sequence[tuple[Cell, Verdict]], asked: set[str], watch: Watch) -> None:
    """Say what is wrong with each refused cell, or all at once if nothing that was asked for could be run."""
    refused = [(cell, verdict.reason) for cell, verdict in verdicts if verdict.word == "refused"]
    if refused and asked <= {cell.folder for cell, _ in refused}:
        raise UserError("; ".join(dict.fromkeys(reason for _, reason in refused)))
    for cell, reason in refused:
        watch.refused(cell, reason)
