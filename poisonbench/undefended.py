"""The undefended model: written by its own cell, read by the repairs, screens and filters that need it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from poisonbench.errors import UserError, one_line
from poisonbench.records import Stored
from poisonbench.towers import Towers
from poisonbench.training import state_of
from poisonbench.twin import MODEL, OPTIMIZER


@dataclass(frozen=True)
class Undefended:
    """What a finished undefended cell left for others.

    Attributes:
        folder: of the cell.
        seconds: that its training took.
    """

    folder: Path
    seconds: float

    @classmethod
    def found(cls, folder: Path, poisoned: str) -> Undefended:
        """What is in ``folder``.

        Args:
            folder: of the finished twin.
            poisoned: fingerprint of the poisoned pairs that the twin must have been trained on.

        Raises:
            UserError: when the twin's record is damaged, or is about data that has changed since.
        """
        try:
            record = Stored.model_validate_json((folder / "record.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _unreadable(folder, error) from None
        if record.provenance.poisoned_data != poisoned:
            raise UserError(
                f"the data has changed since the undefended cell {folder} was run; {_again(folder)}"
            )
        return cls(folder, record.cost.train_seconds if record.cost else 0.0)

    def load(self, towers: Towers) -> dict[str, Tensor]:
        """Put the model's weights into ``towers``, of the same tier.

        Returns:
            The optimiser's moments and step counts, by parameter.

        Raises:
            UserError: when the files are damaged.
        """
        try:
            towers.model.load_state_dict(load_file(self.folder / MODEL, device=str(towers.device)))
            moments: dict[str, Tensor] = load_file(self.folder / OPTIMIZER)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise _unreadable(self.folder, error) from None
        return moments


def save_model(towers: Towers, optimizer_state: dict[str, Tensor], folder: Path) -> None:
    """Leave the model, and what a repair of it needs to know of its optimiser if that is given."""
    save_file(dict(state_of(towers)), folder / MODEL)
    if optimizer_state:
        save_file(optimizer_state, folder / OPTIMIZER)


def _unreadable(folder: Path, error: Exception) -> UserError:
    return UserError(f"the undefended model in {folder} cannot be read ({one_line(error)}); {_again(folder)}")


def _again(folder: Path) -> str:
    return f"remove {folder.name} and run the command again"
