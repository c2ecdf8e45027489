"""Draw what OTCCLIP does to poisons and clean pairs, epoch by epoch: ``python -m tools.plot_mechanism leaderboards``.

Reads the histories of published records, draws mean and range over seeds, writes ``docs/otcclip_mechanism.svg``.
Needs matplotlib (``pip install -e '.[docs]'``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from poisonbench.leaderboard.shelf import published
from poisonbench.records import Record
from tools.vary_table import is_usual

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 3
CURVES = {
    "poison_neutralized": "poisons without a caption that names the target",
    "clean_rows_on_own_caption": "clean pairs on their own caption",
    "recaptioned_true_class": "new captions of clean images that name the true class",
}


@click.command()
@click.argument("board", type=click.Path(path_type=Path, exists=True))
@click.option("--tier", default="clipart", show_default=True)
@click.option("--defense", default="otcclip", show_default=True)
@click.option("--picture", type=click.Path(path_type=Path), default=ROOT / "docs/otcclip_mechanism.svg")
def main(board: Path, tier: str, defense: str, picture: Path) -> None:
    """One panel per attack, one curve per share."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "poisonbench"  # the same records give the same bytes
    panels = _panels(board, tier, defense)
    if not panels:
        raise click.UsageError(f"{board} has no finished {defense} records of tier {tier} with a history")
    figure = _figure(panels)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})
    click.echo(f"wrote {picture}")


def _figure(panels: dict[str, list[Record]]) -> Any:
    """The panels, so many in a line, over one legend."""
    from matplotlib import pyplot

    columns, lines = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
    size = (4.2 * columns, 2.4 * lines + 1)
    figure, axes = pyplot.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (attack, records) in zip(axes.flat, panels.items(), strict=False):
        for key, label in CURVES.items():
            _draw(axis, records, key, label)
        seeds = f"{len(records)} seed" + "s" * (len(records) > 1)
        axis.set(title=f"{attack}, {seeds}", ylim=(0, 1))
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("epoch")
    for axis in axes[:, 0]:
        axis.set_ylabel("share")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.7 / size[1], 1, 1))
    return figure


def _panels(board: Path, tier: str, defense: str) -> dict[str, list[Record]]:
    """The records of every attack at the tier's settings."""
    panels: dict[str, list[Record]] = {}
    for record in published(board / "records").values():
        meant = (record.tier, record.defense.name, record.status) == (tier, defense, "done")
        attacked = record.poison and record.poison.count
        if meant and attacked and is_usual(record):
            panels.setdefault(record.attack.full_name, []).append(record)
    return dict(sorted(panels.items()))


def _draw(axis: object, records: list[Record], key: str, label: str) -> None:
    histories = [[epoch[key] for epoch in record.history if key in epoch] for record in records]
    length = min(map(len, histories))
    if not length:
        return
    values = np.array([history[:length] for history in histories])
    epochs = np.arange(1, length + 1)
    (line,) = axis.plot(epochs, values.mean(axis=0), marker="o", markersize=3, label=label)  # type: ignore[attr-defined]
    axis.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.2)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
