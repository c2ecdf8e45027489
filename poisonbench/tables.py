"""Records as tables for people: one cell in full, or a grid with a line per cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poisonbench.records import Accuracy, AttackSuccess, ProbeAccuracy, Record

Line = tuple[str, str]
LAST_LINES = 3


def show(records: Sequence[Record], paths: Sequence[Path], console: Console) -> None:
    """One record in full, several as a table; ``paths`` are their files."""
    if len(records) == 1:
        console.print(in_full(records[0], paths[0]))
    else:
        console.print(compact(records))


def in_full(record: Record, path: Path) -> Table:
    """Everything that a person wants to know of one cell."""
    title = f"{record.attack.title} × {record.defense.title}, tier {record.tier}, seed {record.seed}"
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        show_header=False,
        box=None,
        padding=(0, 2, 0, 0),
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(record, path):
        table.add_row(name, Text(value))
    return table


def compact(records: Sequence[Record]) -> Table:
    """One line per cell."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("attack", "defence", "seed"):
        table.add_column(name, overflow="fold")
    for name in ("ASR", "base", "zero-shot", "probe", "neutralised", "train s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("attack valid", overflow="fold")
    for record in records:
        table.add_row(*(Text(value) for value in _row(record)))
    return table


def _lines(record: Record, path: Path) -> Iterator[Line]:
    if record.failure:
        yield (
            "failed",
            record.failure.reason + (f" (step {record.failure.step})" if record.failure.step else ""),
        )
        yield from (("", line) for line in record.log[-LAST_LINES:])
    if record.asr:
        yield from _attack(record.asr)
    yield from _named("zero-shot", [_zero_shot(name, shot) for name, shot in record.zero_shot.items()])
    yield from _named("linear probe", [_probe(name, probe) for name, probe in record.linear_probe.items()])
    yield from _retrieval(record)
    yield from _poison(record)
    yield from _cost(record)
    if record.status == "done" and record.asr:
        yield "attack valid", _validity(record)
    yield "record", str(path)


def _attack(asr: AttackSuccess) -> Iterator[Line]:
    counted = f"{asr.successes:,} of {asr.trials:,}, 95% interval {_between(asr.low, asr.high)}"
    yield "attack success", f"{asr.value:.1%} ({counted})"
    yield "without the attack", f"{asr.base:.1%} ({asr.base_successes:,} of {asr.base_trials:,})"
    if asr.true_class is not None:
        yield "still true class", f"{asr.true_class:.1%}"


def _zero_shot(name: str, shot: Accuracy) -> str:
    return f"{shot.top1:.1%} ({_between(shot.low, shot.high)}), top-5 {shot.top5:.1%}: {name}, n = {shot.n:,}"


def _probe(name: str, probe: ProbeAccuracy) -> str:
    return f"{probe.top1:.1%} ({_between(probe.low, probe.high)}), untrained {probe.untrained:.1%}: {name}, n = {probe.n:,}"


def _retrieval(record: Record) -> Iterator[Line]:
    if found := record.retrieval:
        ways = (("image to text", found.image_to_text), ("text to image", found.text_to_image))
        recalls = [
            f"{' / '.join(f'{recall[k]:.1%}' for k in ('1', '5', '10'))}: {way}" for way, recall in ways
        ]
        yield from _named("recall at 1 / 5 / 10", [recalls[0], f"{recalls[1]}, n = {found.n:,}"])


def _poison(record: Record) -> Iterator[Line]:
    if poison := record.poison:
        removed = (
            f", {poison.neutralized:,} neutralised ({poison.neutralized / poison.count:.0%})"
            if poison.count
            else ""
        )
        yield "poison", f"{poison.count:,} rows ({poison.rate:.2%} of the pairs){removed}"


def _cost(record: Record) -> Iterator[Line]:
    if cost := record.cost:
        memory = f"{cost.peak_memory_bytes / 1e9:.2f} GB at the peak"
        yield (
            "cost",
            f"{cost.train_seconds:,.1f} s of training ({cost.pairs_per_second:,.0f} pairs/s), {memory}",
        )
        yield "", f"{cost.evaluation_seconds:,.1f} s of evaluation, {cost.total_seconds:,.1f} s in all"


def _validity(record: Record) -> str:
    if record.valid is None:
        return f"not known yet; run it undefended too: --attack {record.attack.name} --defense none, the rest as here"
    return (
        "yes: it works where nothing defends"
        if record.valid
        else "no: it does not work even where nothing defends"
    )


def _row(record: Record) -> list[str]:
    asr, poison = record.asr, record.poison
    shot, probe = record.zero_shot.get(record.headline), record.linear_probe.get(record.headline)
    valid = {True: "yes", False: "no", None: "twin not run" if asr else "-"}[record.valid]
    return [
        record.attack.name,
        record.defense.name,
        str(record.seed),
        f"{asr.value:.1%}" if asr else "-",
        f"{asr.base:.1%}" if asr else "-",
        f"{shot.top1:.1%}" if shot else "-",
        f"{probe.top1:.1%}" if probe else "-",
        f"{poison.neutralized}/{poison.count}" if poison and poison.count else "-",
        f"{record.cost.train_seconds:,.0f}" if record.cost else "-",
        "failed" if record.status == "failed" else valid,
    ]


def _named(name: str, values: Sequence[str]) -> Iterator[Line]:
    yield from zip((name, *[""] * len(values)), values, strict=False)


def _between(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {high:.1%}"
