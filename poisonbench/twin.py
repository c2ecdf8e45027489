"""The undefended twin of a cell: repairs and screens start from its model, which is trained once for all of them."""

from __future__ import annotations

from pathlib import Path

from poisonbench.cell import Cell, PluginChoice
from poisonbench.registry import attacks, defenses
from poisonbench.source import source_hash
from poisonbench.validity import UNDEFENDED

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
STARTERS = frozenset({"repair", "screening"})
"""Tracks whose defences act on a finished model."""


def twin_of(cell: Cell) -> Cell | None:
    """The undefended cell whose model ``cell`` starts from, or None if it trains its own."""
    if cell.defense.name == UNDEFENDED or defenses().get(cell.defense.name).card.track not in STARTERS:
        return None
    source = source_hash(attacks().get(cell.attack.name), defenses().get(UNDEFENDED))
    return cell.model_copy(update={"defense": PluginChoice(name=UNDEFENDED), "source": source})


def is_shared(folder: Path) -> bool:
    """Whether the folder of a finished undefended cell still has what others start from."""
    return (folder / MODEL).is_file() and (folder / OPTIMIZER).is_file()
