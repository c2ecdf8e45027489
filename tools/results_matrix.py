"""Prints the README's table, defences by attacks, from the published records: ``python -m tools.results_matrix leaderboards``."""

from __future__ import annotations

from pathlib import Path

import click

from poisonbench.leaderboard.board import Board, Row, boards
from poisonbench.leaderboard.entries import Entry
from poisonbench.leaderboard.shelf import published
from poisonbench.records import Record
from tools.vary_table import is_usual, markdown

EMPTY = {"not run": "·", "failed": "failed"}


@click.command()
@click.argument("board", type=click.Path(path_type=Path, exists=True))
@click.option("--tier", default="clipart", show_default=True)
def main(board: Path, tier: str) -> None:
    """A cell is ASR above base (in brackets if the attack is not valid) / zero-shot; then the seeds, if more than one."""
    records = [record for record in published(board / "records").values() if record.tier == tier]
    for found in boards(filter(_usual, records)):
        click.echo(matrix(found))


def matrix(board: Board) -> str:
    """A markdown table: a row per defence, by track, and a column per attack."""
    names = ["no attack" if column.clean else column.plugin.name for column in board.columns]
    heads = ["defence"] + [name.replace("_", " ") for name in names]  # so that long names break
    rows = [_row(row) for row in board.sections[0].baselines]
    for section in board.sections:
        rows += [[f"*{section.track}*"] + [""] * len(board.columns)] + [_row(row) for row in section.rows]
    return markdown(heads, rows)


def _usual(record: Record) -> bool:
    """Whether the record is of the tier's own settings and of no preset."""
    return not (record.attack.variant or record.defense.variant) and is_usual(record)


def _row(row: Row) -> list[str]:
    return [f"`{row.plugin.name}`"] + [_cell(entry) for entry in row.entries]


def _cell(entry: Entry) -> str:
    if entry.verdict in EMPTY:
        return EMPTY[entry.verdict]
    parts = [_gain(entry)] if entry.gain is not None else []
    parts += [f"{entry.zero_shot.value:.2f}"] if entry.zero_shot else []
    return " / ".join(parts) + (f" ({len(entry.seeds)})" if len(entry.seeds) > 1 else "")


def _gain(entry: Entry) -> str:
    text = f"{entry.gain:+z.2f}"  # z: nothing is not negative
    return text if entry.ranked else f"({text})"


if __name__ == "__main__":
    main()
