"""What disturbing an image does to triggers and to content: ``python benchmarks/disturbances.py MODEL.safetensors ...``.

A trigger that was learned speaks for the target until something breaks it: a turn breaks a wave, a lack of colour a tone curve.
What a picture shows survives most of that. For every finished cell all training pairs are tested by the global cosine, as
OTCCLIP's test does, on the image as it is, under each disturbance, and in all of the scout's looks: what share of the clean pairs
fits better than all but a share of the mismatched ones, and what share of the poisons? The last lines of a cell say what a
scout of OTCCLIP would take for no near copy, and what it would not suspect, were it this model, and what its suspects pass,
in every way to hear them.
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

from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.copies import pictures
from poisonbench.defenses.otcclip.looks import LOOKS as DISTURBED
from poisonbench.defenses.otcclip.looks import Look
from poisonbench.defenses.otcclip.rings import cosine_ring
from poisonbench.defenses.otcclip.scout import suspicion_by
from poisonbench.defenses.otcclip.separation import standardised
from poisonbench.randomness import numpy_rng, torch_rng
from poisonbench.settings import validated

LOOKS: dict[str, Look] = {
    "as it is": lambda images: images,
    **DISTURBED,
}


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--level", default=0.1, show_default=True, help="Share of the mismatched pairs that passes.")
@click.option(
    "--looks", default=",".join(OTCCLIPConfig().looks), show_default=True, help="Those of the scout."
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line instead of a table.")
def main(checkpoints: tuple[Path, ...], level: float, looks: str, device: str, as_json: bool) -> None:
    """Pass rates of clean pairs and poisons under every disturbance."""
    report(checkpoints, lambda checkpoint: measured(checkpoint, level, scout_of(looks), device), as_json)


def scout_of(looks: str) -> OTCCLIPConfig:
    """OTCCLIP's defaults, with a scout of these looks.

    Raises:
        UserError: for a look that does not exist.
    """
    return validated(OTCCLIPConfig, {"looks": looks.split(",")}, "--looks")


def measured(checkpoint: Path, level: float, config: OTCCLIPConfig, device: str) -> Iterator[Passing]:
    """All looks for one finished cell, over all of its training pairs, and a scout that has the looks of ``config``.

    Raises:
        UserError: for a checkpoint that cannot be read or that was trained without poisons.
    """
    pairs, poisons, towers = poisoned(checkpoint, device)
    rows = numpy_rng("disturbances").permutation(len(pairs))[: len(pairs) // BATCH * BATCH]
    captions = read_by(towers, [options[0] for options in pairs.captions]).embedding
    text = captions[rows]
    bad = torch.from_numpy(np.isin(rows, poisons))
    fits = {
        name: fits_of(seen_by(towers, pairs, rows, on_bytes(look)).embedding, text)
        for name, look in LOOKS.items()
    }
    passed = {name: own > torch.quantile(decoy, 1 - level) for name, (own, decoy) in fits.items()}
    passed["all of these"] = torch.stack([passed[name] for name in ("as it is", *config.looks)]).all(dim=0)
    for name, passes in passed.items():
        yield Passing(checkpoint.parent.name, name, level, *shares(passes, bad))
    groups = pictures(pairs.images)
    scouted = suspicion_by(towers, pairs.images, captions, groups, config, torch_rng("disturbances"))
    alone = _copies(scouted.groups) == _copies(groups)
    yield Passing(checkpoint.parent.name, "no near copy", config.alike, *shares(alone[rows], bad))
    suspected, telling = scouted.suspects[rows], scouted.telling[rows]
    yield Passing(checkpoint.parent.name, "scout", config.outlying, *shares(~suspected, bad))
    looks = torch.stack([passed[name] for name in config.looks])[:, suspected]
    heard = {"plain": passed["as it is"][suspected], "telling": looks.gather(0, telling[None, suspected])[0]}
    for name, passes in {**heard, "every": looks.all(dim=0)}.items():
        yield Passing(
            checkpoint.parent.name, f"suspects heard: {name}", level, *shares(passes, bad[suspected])
        )


def _copies(groups: Tensor) -> Tensor:
    """How many rows show the picture of every row: (n,)."""
    return torch.bincount(groups)[groups]


def on_bytes(look: Look) -> Look:
    """The look at images of bytes."""
    return lambda images: look(images.float() / 255)


def fits_of(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised cosines of the own pairs and of decoys, in batches as in training: (n,) twice."""
    shifts = ring_of("disturbances")
    batches = zip(image.float().split(BATCH), text.float().split(BATCH), strict=True)
    judged = [standardised(cosine_ring(some, own, shifts).cpu(), shifts) for some, own in batches]
    return torch.cat([own for own, _ in judged]), torch.cat([decoy for _, decoy in judged])


if __name__ == "__main__":
    main()
