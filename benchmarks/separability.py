"""What tells poisons from clean pairs in a finished cell's model: ``python benchmarks/separability.py MODEL.safetensors ...``.

Each measure of fit is compared with that of decoys, as OTCCLIP's test does: at a level, what share of the clean pairs
passes, and what share of the poisons? Recurrence is compared with that of clean images whose pairs fit: what share of the
poisons has no region that recurs more than the regions of all but a share of those?
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from ot_tokens import read_by, seen_by
from passing import BATCH, Passing, poisoned, report, ring_of, shares
from torch import Tensor

from poisonbench.defenses.otcclip.recurrence import Recurrence
from poisonbench.defenses.otcclip.regions import worst_ring
from poisonbench.defenses.otcclip.rings import cosine_ring, transport_ring
from poisonbench.defenses.otcclip.separation import standardised
from poisonbench.randomness import numpy_rng
from poisonbench.towers import Features

PLANS = (0.1, 10, "torch")
LEVELS = (0.05, 0.1, 0.25)
SHARES = (0.02, 0.05, 0.1)
SOUND = 0.1
"""Level of the pairs that recurrence takes for sound."""


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--clean", default=2048, show_default=True, help="Clean rows that are looked at.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line instead of a table.")
def main(checkpoints: tuple[Path, ...], clean: int, device: str, as_json: bool) -> None:
    """Pass rates of clean pairs and poisons under every measure."""
    report(checkpoints, lambda checkpoint: measured(checkpoint, clean, device), as_json)


def measured(checkpoint: Path, clean: int, device: str) -> Iterator[Passing]:
    """All measures at all levels for one finished cell.

    Raises:
        UserError: for a checkpoint that cannot be read or that was trained without poisons.
    """
    pairs, poisons, towers = poisoned(checkpoint, device)
    rng = numpy_rng("separability")
    others = np.setdiff1d(np.arange(len(pairs)), poisons)
    rows = rng.permutation(np.concatenate([poisons, rng.permutation(others)[:clean]]))
    rows, cell = rows[: len(rows) // BATCH * BATCH], checkpoint.parent.name
    image = seen_by(towers, pairs, rows)
    text = read_by(towers, [pairs.captions[row][0] for row in rows])
    bad = torch.from_numpy(np.isin(rows, poisons))
    fits = judged(image, text)
    for measure, (own, decoy) in fits.items():
        for level in LEVELS:
            passes = own > torch.quantile(decoy, 1 - level)
            yield Passing(cell, measure, level, *shares(passes, bad))
    scores, sound = recurrence(image, fits)
    for share in SHARES:
        passes = scores <= torch.quantile(scores[sound & ~bad], 1 - share)
        yield Passing(cell, "not recurring", share, *shares(passes, bad))
        yield Passing(cell, "not recurring, of sound pairs", share, *shares(passes[sound], bad[sound]))


def judged(image: Features, text: Features) -> dict[str, tuple[Tensor, Tensor]]:
    """Standardised fits of own pairs and decoys by measure, in batches as in training."""
    shifts = ring_of("separability")
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for at in range(0, len(image.embedding), BATCH):
        some, own = (side[at : at + BATCH] for side in (image, text))
        near, fine = worst_ring(some, own, shifts, 0.5, *PLANS)
        fits = {
            "global cosine": cosine_ring(some.embedding, own.embedding, shifts),
            "transport": transport_ring(some, own, shifts, *PLANS),
            "cosine over the worst half": near,
            "transport over the worst half": fine,
        }
        for measure, fit in fits.items():
            found.setdefault(measure, []).append(standardised(fit.cpu(), shifts))
    return {
        name: (torch.cat([own for own, _ in parts]), torch.cat([decoy for _, decoy in parts]))
        for name, parts in found.items()
    }


def recurrence(image: Features, fits: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """How much the regions of every image recur among ill-fitting pairs, and whose pairs fit: (n,) and bool (n,)."""
    own, decoy = (
        sum((fits[f"{kind} over the worst half"][side] for kind in ("cosine", "transport")), torch.zeros(()))
        for side in (0, 1)
    )
    unfit, sound = own <= decoy.median(), own > torch.quantile(decoy, 1 - SOUND)
    rows = torch.arange(len(own))
    found = Recurrence(rows, memory=0.0, share=min(SHARES))
    for _ in range(2):
        for some in rows.split(BATCH):
            look = image[int(some[0]) : int(some[-1]) + 1]
            found.recurring(some, [look], sound[some])
            found.add(some, look, unfit[some], sound[some])
    return found.scores.mean, sound


if __name__ == "__main__":
    main()
