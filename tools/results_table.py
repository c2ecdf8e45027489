"""Prints the table of docs/results.md from the published records: ``python -m tools.results_table leaderboards``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import click

from poisonbench.leaderboard.entries import Entry, summarise
from poisonbench.leaderboard.intervals import Count
from poisonbench.leaderboard.shelf import published
from poisonbench.records import Record
from tools.vary_table import NOTHING, default_of, deviations, fields_of, markdown, share

HEADS = (
    "attack",
    "defence",
    "seeds",
    "ASR (95% interval)",
    "base",
    "gain",
    "zero-shot",
    "probe",
    "neutralised",
)


@click.command()
@click.argument("board", type=click.Path(path_type=Path, exists=True))
@click.option("--tier", default="clipart", show_default=True)
def main(board: Path, tier: str) -> None:
    """One row per attack (its target, and what is unusual), defence and configuration; the latest record of a seed counts.

    A gain is in brackets where the attack is not valid.
    """
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    records = [record for record in published(board / "records").values() if record.tier == tier]
    for record in records:
        groups[_attack_label(record), _label(record, records), record.provenance.data].append(record)
    rows = ([*names, *_numbers(summarise(group, []))] for (*names, _), group in sorted(groups.items()))
    click.echo(markdown(HEADS, rows))


def _attack_label(record: Record) -> str:
    """The attack, its target, and the other fields in which it, or the recipe, differs from the tier's."""
    own, unusual = fields_of(record), deviations(fields_of(record), default_of(record)) - {"attack.target"}
    told = [str(own["attack.target"])] if own.get("attack.target") else []
    told += [
        f"{field.removeprefix('attack.')}={own[field]}"
        for field in sorted(unusual)
        if not field.startswith("defense.")
    ]
    return f"`{record.attack.full_name}`" + (f" ({', '.join(told)})" if told else "")


def _label(record: Record, records: list[Record]) -> str:
    """The defence, with the fields in which its published configurations differ."""
    others = [
        other.defense.config for other in records if other.defense.full_name == record.defense.full_name
    ]
    own = record.defense.config
    differing = [key for key in sorted(own) if any(other.get(key) != own[key] for other in others)]
    return f"`{record.defense.full_name}`" + "".join(f" {key}={own[key]}" for key in differing)


def _numbers(entry: Entry) -> list[str]:
    seeds = ",".join(map(str, entry.seeds)) or entry.remark
    measured = [share(part.value if part else None) for part in (entry.zero_shot, entry.probe)]
    return [seeds, *_success(entry), *measured, _of(entry.neutralised)]


def _success(entry: Entry) -> list[str]:
    if entry.asr is None or entry.base is None:
        return [NOTHING] * 3
    asr, interval = entry.asr, entry.asr.wilson()
    measured = f"{_of(asr)} = {asr.value:.3f} ({interval.low:.3f}-{interval.high:.3f})"
    gain = f"{entry.gain:+.3f}"
    return [measured, share(entry.base.value), gain if entry.ranked else f"({gain})"]


def _of(count: Count | None) -> str:
    return f"{count.successes}/{count.trials}" if count else NOTHING


if __name__ == "__main__":
    main()
