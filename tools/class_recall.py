"""What a defence costs the class that was attacked: ``python tools/class_recall.py runs/CELL ...``.

A model that never names the target class has no attack success and no base, and loses little accuracy over all classes. So: of
the clean test images of the target class, how many does it name? From the stored predictions of the attack's own task.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from poisonbench.errors import UserError
from poisonbench.evaluation.outputs import FILE, Outputs

HEADER = (
    "| cell | target's images | of them named | others named | named as the target |\n|---|---|---|---|---|"
)


class Recall(NamedTuple):
    """What a model makes of the clean images of a task.

    Attributes:
        images: of the target classes.
        named: of those, how many it gives their class.
        others: share of the other images that it gives theirs.
        claimed: images of any class that it gives a target class.
    """

    images: int
    named: int
    others: float
    claimed: int


@click.command()
@click.argument(
    "cells", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
def main(cells: tuple[Path, ...]) -> None:
    """A row per finished cell with an attack."""
    try:
        found = [(cell.name, recall(Outputs.load(cell / FILE), str(cell))) for cell in cells]
    except UserError as error:
        raise click.UsageError(str(error)) from None
    click.echo(HEADER)
    for name, one in found:
        click.echo(f"| {name} | {one.images} | {one.named} | {one.others:.3f} | {one.claimed} |")


def recall(outputs: Outputs, cell: str) -> Recall:
    """How often the classes that the attack aimed at are named for clean images.

    Raises:
        UserError: for a cell without an attack.
    """
    tasks = outputs.tasks("attack")
    if not tasks:
        raise UserError(f"{cell}: nothing was attacked in this cell; name one with an attack")
    attacked, clean = outputs.block("attack", tasks[0]), outputs.block("zero_shot", tasks[0])
    targets = np.unique(attacked.goal)
    target = np.isin(clean.label, targets)
    right = clean.prediction == clean.label
    others = float(right[~target].mean()) if (~target).any() else float("nan")
    claimed = int(np.isin(clean.prediction, targets).sum())
    return Recall(int(target.sum()), int(right[target].sum()), others, claimed)


if __name__ == "__main__":
    main()
