"""What passes a test that poisons should fail: the pairs of a finished cell, the shares that pass, and their table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import torch
from caption_sample import manifest_of
from ot_tokens import opened
from torch import Tensor

from poisonbench.errors import UserError
from poisonbench.randomness import torch_rng

if TYPE_CHECKING:
    from poisonbench.pairs import Pairs, Rows
    from poisonbench.towers import Towers

BATCH, REFERENCES = 64, 24


@dataclass(frozen=True)
class Passing:
    """What passes a test.

    Attributes:
        cell: the folder of the model.
        measure: what is tested.
        level: share of the decoys that pass; for recurrence, of the sound clean images that recur; for a scout, the deviations
            from which it suspects, or the correlation of near copies.
        clean: share of the clean pairs that pass.
        poisons: share of the poisons that pass.
    """

    cell: str
    measure: str
    level: float
    clean: float
    poisons: float


def report(checkpoints: Sequence[Path], measured: Callable[[Path], Iterable[Passing]], as_json: bool) -> None:
    """Print what passes in every cell, as one table or as one JSON object per line."""
    if not as_json:
        click.echo("| cell | measure | level | clean pairs pass | poisons pass |\n|---|---|---|---|---|")
    for checkpoint in checkpoints:
        try:
            found = list(measured(checkpoint))
        except UserError as error:
            raise click.UsageError(str(error)) from None
        for one in found:
            click.echo(
                json.dumps(asdict(one))
                if as_json
                else f"| {one.cell} | {one.measure} | {one.level:g} | {one.clean:.2f} | {one.poisons:.2f} |"
            )


def poisoned(checkpoint: Path, device: str) -> tuple[Pairs, Rows, Towers]:
    """The pairs that a finished cell's model was trained on, which of them are poisons, and the model.

    Raises:
        UserError: for a checkpoint that cannot be read or that was trained without poisons.
    """
    data, towers = opened(checkpoint, device)
    manifest = manifest_of(checkpoint)
    poisons = manifest.rows(len(data.train))
    if not len(poisons):
        raise UserError(f"{checkpoint}: this cell has no poisons to tell from clean pairs")
    return manifest.apply(data.train, data.targets), poisons, towers


def ring_of(purpose: str) -> list[int]:
    """The ring offsets of the references in a batch, 0 first."""
    draw = torch.randperm(BATCH - 1, generator=torch_rng(purpose))[:REFERENCES] + 1
    return [0, *draw.tolist()]


def shares(passes: Tensor, bad: Tensor) -> tuple[float, float]:
    """The shares of clean rows and of poisons that pass."""
    return float(passes[~bad].float().mean()), float(passes[bad].float().mean())
