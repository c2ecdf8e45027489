"""Records as tables for people: one cell in full, or a grid with a line per cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poisonbench.records import AttackSuccess, Record, RepairCandidate
from poisonbench.words import speed

Row = tuple[str, str, str]
"""A group of numbers, what the number is of, the number."""

T = TypeVar("T")
LAST_LINES = 3


def show_records(found: Sequence[tuple[Record, Path]], console: Console) -> None:
    """One record in full, several as a table; each comes with its file."""
    if len(found) != 1:
        console.print(compact([record for record, _ in found]))
        return
    record, path = found[0]
    console.print(in_full(record))
    console.print(f"record: {path}", markup=False, soft_wrap=True)


def in_full(record: Record) -> Table:
    """Everything that a person wants to know of one cell."""
    title = (
        f"{record.attack.full_title} × {record.defense.full_title}, tier {record.tier}, seed {record.seed}"
    )
    table = _open_table(title)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    shown = ""
    for group, what, value in _rows(record):
        table.add_row("" if group == shown else group, Text(what), Text(value))
        shown = group
    return table


def compact(records: Sequence[Record]) -> Table:
    """One line per cell."""
    table = _open_table()
    for name in ("attack", "defence"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "ASR", "base", "zero-shot", "probe"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("valid", no_wrap=True)
    for record in records:
        table.add_row(*(Text(value) for value in _line(record)))
    return table


def _rows(record: Record) -> Iterator[Row]:
    if record.failure:
        at = f" (step {record.failure.step})" if record.failure.step is not None else ""
        yield "failed", "reason", record.failure.reason + at
        yield from (("failed", "log", line) for line in record.log[-LAST_LINES:])
    if record.asr:
        yield from _attack(record, record.asr)
    if found := record.attack_retrieval:
        hits = " / ".join(f"{found.hits[k]:.1%}" for k in ("1", "5", "10"))
        base = " / ".join(f"{found.base_hits[k]:.1%}" for k in ("1", "5", "10"))
        yield "attack", "hit@1/5/10", f"{hits}, min-rank {found.min_rank:.1f}, n={found.n:,}"
        yield "attack", "without it", f"{base}, min-rank {found.base_min_rank:.1f}"
    for name, shot in _headline_first(record.zero_shot, record.headline):
        reached = f"{shot.top1:.1%} ({_between(shot.low, shot.high)}), top-5 {shot.top5:.1%}"
        yield "zero-shot", name, f"{reached}, n={shot.n:,}"
    for name, probe in _headline_first(record.linear_probe, record.headline):
        reached = f"{probe.top1:.1%} ({_between(probe.low, probe.high)}), untrained {probe.untrained:.1%}"
        yield "linear probe", name, f"{reached}, n={probe.n:,}"
    yield from _retrieval(record)
    yield from _poison(record)
    yield from _found(record)
    yield from (("repair", one.name, _reached(one)) for one in record.frontier)
    yield from _cost(record)


def _attack(record: Record, asr: AttackSuccess) -> Iterator[Row]:
    counted = f"({asr.successes:,} of {asr.trials:,}; 95% {_between(asr.low, asr.high)})"
    yield "attack", "success", f"{asr.value:.1%} {counted}"
    yield "attack", "without it", f"{asr.base:.1%} ({asr.base_successes:,} of {asr.base_trials:,})"
    if asr.true_class is not None:
        yield "attack", "true class", f"{asr.true_class:.1%}"
    if record.status == "done":
        yield "attack", "valid", _validity(record)


def _validity(record: Record) -> str:
    if record.valid is None:
        return "not known: run the same with --defense none"
    return "yes: it works undefended" if record.valid else "no: it does not work even undefended"


def _retrieval(record: Record) -> Iterator[Row]:
    if found := record.retrieval:
        ways = (("image to text", found.image_to_text), ("text to image", found.text_to_image))
        for way, recall in ways:
            reached = " / ".join(f"{recall[k]:.1%}" for k in ("1", "5", "10"))
            yield "recall@1/5/10", way, f"{reached}, n={found.n:,}"


def _poison(record: Record) -> Iterator[Row]:
    if (poison := record.poison) and poison.count:
        yield "poison", "rows", f"{poison.count:,} ({poison.rate:.2%} of the pairs)"
        yield "poison", "neutralised", f"{poison.neutralized:,} ({poison.neutralized / poison.count:.0%})"


def _found(record: Record) -> Iterator[Row]:
    if (rows := record.detection) and rows.auroc is not None:
        recalls = " / ".join(f"{rows.recall[k]:.1%}" for k in ("1", "2", "5", "10"))
        yield "detection", "poisoned rows", f"AUROC {rows.auroc:.3f}, AP {rows.average_precision:.3f}"
        yield "detection", "recall@1/2/5/10%", recalls
    if rows := record.detection:
        yield "detection", "removed", f"{rows.removed:,} rows, {rows.removed_poisons:,} of them poisoned"
    if inputs := record.screening:
        separated = "" if inputs.auroc is None else f", AUROC {inputs.auroc:.3f}, n={inputs.attacked:,}"
        yield "screening", "flagged clean", f"{inputs.false_positive_rate:.1%} of {inputs.clean:,}{separated}"


def _reached(one: RepairCandidate) -> str:
    """A model of a repair's sweep in one line, the number that decided first."""
    if one.failure:
        return f"failed: {one.failure.reason}"
    measured = [("validation", one.validation_accuracy), ("zero-shot", one.zero_shot)]
    measured += [("ASR", one.asr), ("base", one.base)]
    words = [f"{what} {value:.1%}" for what, value in measured if value is not None]
    return ", ".join([*words, "chosen"] if one.chosen else words)


def _cost(record: Record) -> Iterator[Row]:
    if cost := record.cost:
        yield "cost", "training", f"{cost.train_seconds:,.1f} s ({speed(cost.pairs_per_second, 'pairs')})"
        if cost.curation_seconds:
            yield "cost", "beforehand", f"{cost.curation_seconds:,.1f} s of it, before the loop"
        yield "cost", "evaluation", f"{cost.evaluation_seconds:,.1f} s; {cost.total_seconds:,.1f} s in all"
        yield "cost", "memory", f"{cost.peak_memory_bytes / 1e9:.2f} GB at the peak"


def _line(record: Record) -> list[str]:
    asr = record.asr
    shot, probe = record.zero_shot.get(record.headline), record.linear_probe.get(record.headline)
    valid = {True: "yes", False: "no", None: "unknown" if asr else "-"}[record.valid]
    return [
        record.attack.full_name,
        record.defense.full_name,
        str(record.seed),
        f"{asr.value:.1%}" if asr else "-",
        f"{asr.base:.1%}" if asr else "-",
        f"{shot.top1:.1%}" if shot else "-",
        f"{probe.top1:.1%}" if probe else "-",
        "failed" if record.status == "failed" else valid,
    ]


def _open_table(title: str = "") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=not title, header_style="bold")
    if title:
        table.title, table.title_justify = Text(title, style="bold"), "left"
    return table


def _headline_first(tasks: dict[str, T], headline: str) -> list[tuple[str, T]]:
    return sorted(tasks.items(), key=lambda item: (item[0] != headline, item[0]))


def _between(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{high:.1%}"
