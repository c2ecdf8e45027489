"""How far the cells of a folder are: done, running, failed or left, with the time to go."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from pydantic import Field

from poisonbench.arguments import full_name
from poisonbench.cell import Cell
from poisonbench.plan import Pulse
from poisonbench.records import PluginUse, Record
from poisonbench.settings import Settings
from poisonbench.store import Store

MAIN = "training"
"""What the loop calls the training of the defended model, after which only the evaluation comes."""


class Standing(Settings):
    """One cell.

    Attributes:
        attack: by name.
        defense: by name.
        tier: by name.
        seed: of the cell.
        folder: under the runs folder.
        phase: what it does, if it is running.
        share: of its training that is done, as far as is known.
        seconds: what it took, if it has ended.
        seconds_left: what it will take, if it has not and that can be told.
        reason: why it failed, if it did.
    """

    attack: str
    defense: str
    tier: str
    seed: int
    folder: str
    phase: str = ""
    share: float = 0.0
    seconds: float | None = None
    seconds_left: float | None = None
    reason: str = ""


class Status(Settings):
    """All cells that were run or asked for, each in one list.

    Attributes:
        done: with numbers.
        running: a living process works on them.
        failed: with a reason; the next run tries them again.
        left: asked for, and not begun or interrupted.
        seconds_left: until nothing is running or left, with as many processes as there are now.
    """

    done: list[Standing] = Field(default_factory=list)
    running: list[Standing] = Field(default_factory=list)
    failed: list[Standing] = Field(default_factory=list)
    left: list[Standing] = Field(default_factory=list)
    seconds_left: float | None = None


class Finished(NamedTuple):
    """A finished cell's kind and what it took."""

    tier: str
    defense: str
    seconds: float


def status_of(store: Store, now: float | None = None) -> Status:
    """The state of every cell under ``store``, as it is this moment (``now``: seconds since 1970)."""
    now = time.time() if now is None else now
    entries = {path.parent.name: record for record, path in store.entries()}
    past = [found for record in entries.values() if (found := _finished(record))]
    asked = {cell.folder: cell for cell in store.plan.asked()}
    running = {name: cell for name, cell in asked.items() if store.is_claimed(cell)}
    left = {name: cell for name, cell in asked.items() if name not in running and name not in entries}
    ended = {name: _ended(name, record) for name, record in entries.items() if name not in running}
    at_work = [_under_way(cell, store.plan.pulse(cell), past, now) for cell in running.values()]
    to_come = [_to_come(cell, store.plan.pulse(cell), past) for cell in left.values()]
    return Status(
        done=[ended[name] for name in ended if entries[name].status == "done"],
        running=at_work,
        failed=[ended[name] for name in ended if entries[name].status == "failed"],
        left=to_come,
        seconds_left=_together([*at_work, *to_come], max(1, len(at_work))),
    )


def expected(cell: Cell, past: Iterable[Finished]) -> float | None:
    """Seconds that a cell takes from its beginning: the mean of its like, else of its tier, else unknown."""
    tier = [one for one in past if one.tier == cell.tier.name]
    like = [one.seconds for one in tier if one.defense == cell.defense.full_name]
    found = like or [one.seconds for one in tier]
    return fmean(found) if found else None


def _under_way(cell: Cell, pulse: Pulse | None, past: Sequence[Finished], now: float) -> Standing:
    """A running cell: by its own speed if that can be told, else by what its like took."""
    standing, whole = _standing(cell), expected(cell, past)
    if pulse is None:
        return standing.model_copy(update={"seconds_left": whole})
    seconds = _left(pulse, whole)
    if seconds is not None:
        seconds = max(0.0, seconds - (now - pulse.written))
    return standing.model_copy(update={"phase": pulse.phase, "share": pulse.share, "seconds_left": seconds})


def _left(pulse: Pulse, whole: float | None) -> float | None:
    """Seconds from a pulse on: by its speed in the defended model's training, else at least what is left of its like's time."""
    rest = None if whole is None else max(0.0, whole - pulse.spent)
    made = pulse.share - pulse.begun
    if made <= 0 or not pulse.phase.startswith(pulse.training):
        return rest
    own = (pulse.written - pulse.started) * (1 - pulse.share) / made
    return own if pulse.training == MAIN or rest is None else max(own, rest)


def _to_come(cell: Cell, pulse: Pulse | None, past: Sequence[Finished]) -> Standing:
    """A cell that nobody works on; what it did before it was interrupted is mostly in its checkpoint."""
    share, whole = pulse.share if pulse else 0.0, expected(cell, past)
    left = None if whole is None else max(0.0, whole - (pulse.spent if pulse else 0.0))
    return _standing(cell).model_copy(update={"share": share, "seconds_left": left})


def _together(cells: Sequence[Standing], workers: int) -> float | None:
    """Seconds for all of them, or None where one cannot be told; no cell is done by two."""
    known = [cell.seconds_left for cell in cells if cell.seconds_left is not None]
    if len(known) < len(cells):
        return None
    return max([sum(known) / workers, *known], default=0.0)


def _standing(cell: Cell) -> Standing:
    return Standing(
        attack=cell.attack.full_name, defense=cell.defense.full_name, tier=cell.tier.name, seed=cell.seed,
        folder=cell.folder,
    )  # fmt: skip


def _ended(folder: str, record: Record) -> Standing:
    return Standing(
        attack=_name(record.attack), defense=_name(record.defense), tier=record.tier, seed=record.seed, folder=folder,
        share=float(record.status == "done"), seconds=record.cost.total_seconds if record.cost else None,
        reason=record.failure.reason if record.failure else "",
    )  # fmt: skip


def _finished(record: Record) -> Finished | None:
    if record.status == "failed" or record.cost is None:
        return None
    return Finished(record.tier, _name(record.defense), record.cost.total_seconds)


def _name(plugin: PluginUse) -> str:
    return full_name(plugin.name, plugin.variant)


def status_lines(status: Status) -> Iterator[str]:
    """The status for people: a line per cell that is not done, and a sum."""
    for standing in status.running:
        yield f"running  {_label(standing)}: {standing.phase or 'begins'}{_to_go(standing.seconds_left)}"
    for standing in status.failed:
        yield f"failed   {_label(standing)}: {standing.reason}"
    for standing in status.left:
        begun = f": {standing.share:.0%} done when it was interrupted" if standing.share else ""
        yield f"left     {_label(standing)}{begun}{_to_go(standing.seconds_left)}"
    counts = ((name, len(getattr(status, name))) for name in ("done", "running", "failed", "left"))
    yield ", ".join(f"{count} {name}" for name, count in counts) + _to_go(status.seconds_left or None)


def _label(one: Standing) -> str:
    return f"{one.attack} × {one.defense}, {one.tier}, seed {one.seed}"


def _to_go(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f", {hours}h{minutes:02}m to go" if hours else f", {max(1, minutes)}m to go"
