"""The undefended twin of a cell: its model is trained once for all repairs, screens and filters that need it."""

from __future__ import annotations

from pathlib import Path

from poisonbench.cell import Cell, PluginChoice
from poisonbench.registry import attacks, defenses
from poisonbench.source import source_hash
from poisonbench.validity import UNDEFENDED

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


def twin_of(cell: Cell) -> Cell | None:
    """The undefended cell whose model ``cell`` needs, or None."""
    if cell.defense.name == UNDEFENDED or not defenses().get(cell.defense.name).card.needs_undefended:
        return None
    source = source_hash(attacks().get(cell.attack.name), defenses().get(UNDEFENDED))
    return cell.model_copy(update={"defense": PluginChoice(name=UNDEFENDED), "source": source})


def is_shared(folder: Path) -> bool:
    """Whether the folder of a finished undefended cell still has what others need."""
    return (folder / MODEL).is_file() and (folder / OPTIMIZER).is_file()
