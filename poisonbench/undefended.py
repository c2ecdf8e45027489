"""The undefended model that repairs and screens start from: written by its own cell, read by all others."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from poisonbench.errors import UserError, one_line
from poisonbench.records import Stored
from poisonbench.towers import Towers
from poisonbench.training import state_of
from poisonbench.twin import MODEL, OPTIMIZER


class Undefended(NamedTuple):
    """What an undefended cell left for others.

    Attributes:
        optimizer_state: moments and step counts by parameter.
        seconds: of its training.
    """

    optimizer_state: dict[str, Tensor]
    seconds: float


def save_model(towers: Towers, optimizer_state: dict[str, Tensor], folder: Path) -> None:
    """Leave the model, and what a repair of it needs to know of its optimiser if that is given."""
    save_file(dict(state_of(towers)), folder / MODEL)
    if optimizer_state:
        save_file(optimizer_state, folder / OPTIMIZER)


def load_undefended(folder: Path, towers: Towers, poisoned: str) -> Undefended:
    """Put the twin's weights into ``towers``.

    Args:
        folder: of the finished twin.
        towers: the model of the same tier.
        poisoned: fingerprint of the poisoned pairs that the twin must have been trained on.

    Raises:
        UserError: when the twin's files are damaged, or were made from data that has changed since.
    """
    try:
        record = Stored.model_validate_json((folder / "record.json").read_text(encoding="utf-8"))
        towers.model.load_state_dict(load_file(folder / MODEL, device=str(towers.device)))
        state = load_file(folder / OPTIMIZER)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"the undefended model in {folder} cannot be read ({one_line(error)}); {_again(folder)}"
        ) from None
    if record.provenance.poisoned_data != poisoned:
        raise UserError(f"the data has changed since the undefended cell {folder} was run; {_again(folder)}")
    return Undefended(state, record.cost.train_seconds if record.cost else 0.0)


def _again(folder: Path) -> str:
    return f"remove {folder.name} and run the command again"
