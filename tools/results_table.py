"""Prints the README's results table from the published records: ``python tools/results_table.py leaderboards``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from poisonbench.evaluation.statistics import wilson
from poisonbench.leaderboard.entries import done, one_per_seed
from poisonbench.leaderboard.shelf import published
from poisonbench.records import Record

HEADER = "| attack | defence | seeds | ASR (95% interval) | base | gain | zero-shot | probe | neutralised |"


@click.command()
@click.argument("board", type=click.Path(path_type=Path, exists=True))
@click.option("--tier", default="clipart", show_default=True)
def main(board: Path, tier: str) -> None:
    """One row per attack (with its target), defence and configuration, over its seeds; the latest record of a seed counts."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    records = [record for record in published(board / "records").values() if record.tier == tier]
    for record in records:
        target = record.attack.config.get("target")
        attack = f"`{record.attack.full_name}`" + (f" ({target})" if target else "")
        groups[attack, _label(record, records)].append(record)
    click.echo(HEADER + "\n|" + "---|" * HEADER.count(" |"))
    for (attack, defense), records in sorted(groups.items()):
        click.echo(f"| {attack} | {defense} | {_row(done(one_per_seed(records)[0]))} |")


def _label(record: Record, records: list[Record]) -> str:
    """The defence, with the fields in which its published configurations differ."""
    others = [
        other.defense.config for other in records if other.defense.full_name == record.defense.full_name
    ]
    own = record.defense.config
    differing = [key for key in sorted(own) if any(other.get(key) != own[key] for other in others)]
    return f"`{record.defense.full_name}`" + "".join(f" {key}={own[key]}" for key in differing)


def _row(records: Sequence[Record]) -> str:
    seeds = ",".join(str(record.seed) for record in sorted(records, key=lambda record: record.seed))
    head = [record.headline for record in records]
    shot = np.mean([record.zero_shot[name].top1 for name, record in zip(head, records, strict=True)])
    probe = np.mean([record.linear_probe[name].top1 for name, record in zip(head, records, strict=True)])
    return f"{seeds} | {_attack(records)} | {shot:.3f} | {probe:.3f} | {_poison(records)}"


def _attack(records: Sequence[Record]) -> str:
    found = [record.asr for record in records if record.asr is not None]
    if not found:
        return "- | - | -"
    hits, trials = sum(asr.successes for asr in found), sum(asr.trials for asr in found)
    interval = wilson(hits, trials)
    base = float(np.mean([asr.base for asr in found]))
    gain = float(np.mean([asr.value - asr.base for asr in found]))
    return f"{hits}/{trials} = {hits / trials:.3f} ({interval.low:.3f}-{interval.high:.3f}) | {base:.3f} | {gain:+.3f}"


def _poison(records: Sequence[Record]) -> str:
    found = [record.poison for record in records if record.poison is not None]
    return f"{sum(p.neutralized for p in found)}/{sum(p.count for p in found)}"


if __name__ == "__main__":
    main()
