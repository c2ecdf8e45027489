"""The record of a cell that crashed: it says why, so that the rest of a grid can go on."""

from __future__ import annotations

import traceback
from pathlib import Path

from poisonbench import registry
from poisonbench.cell import Cell
from poisonbench.provenance import provenance
from poisonbench.records import Failure, PluginUse, Stored


def failed(cell: Cell, error: Exception) -> Stored:
    """A record without numbers; its log holds the traceback, innermost frame last."""
    frames = traceback.extract_tb(error.__traceback__)
    attack = registry.attacks().get(cell.attack.name).card
    defense = registry.defenses().get(cell.defense.name).card
    return Stored(
        attack=PluginUse(
            name=cell.attack.name,
            config=cell.attack.config,
            title=attack.title,
            variant=cell.attack.variant,
        ),
        defense=PluginUse(
            name=cell.defense.name,
            config=cell.defense.config,
            title=defense.title,
            track=defense.track,
            reconstruction=defense.reconstruction,
            variant=cell.defense.variant,
        ),
        tier=cell.tier.name,
        seed=cell.seed,
        status="failed",
        failure=Failure(reason=explained(error), step=getattr(error, "step", None)),
        config=cell.model_dump(mode="json"),
        log=[f"{_short(frame.filename)}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames],
        provenance=provenance(cell, "", ""),
    )


def explained(error: Exception) -> str:
    """An error's kind, words and place in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    words = " ".join(str(error).split())
    name = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return f"{name} ({_short(frames[-1].filename)}:{frames[-1].lineno})" if frames else name


def _short(filename: str) -> str:
    """The last two parts of a path, so that a record tells where but not on whose machine."""
    return "/".join(Path(filename).parts[-2:])
