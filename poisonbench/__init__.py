"""PoisonBench: attacks, defences and an honest leaderboard for CLIP trained on poisoned image-caption pairs.

    import poisonbench as pb

    record = pb.run(attack="backdoor_badnet", defense="otcclip")

Importing the package is cheap: what is listed in ``__all__`` is loaded when it is first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    from poisonbench.attack import Attack, AttackCard, AttackConfig, Probe
    from poisonbench.defense import (
        Batch,
        Candidate,
        Curation,
        Defense,
        DefenseCard,
        DefenseConfig,
        Objective,
        Pass,
        Screen,
    )
    from poisonbench.errors import UserError
    from poisonbench.manifest import Edit, Manifest, Picture
    from poisonbench.records import Record

    __version__: str

__all__ = [
    "Attack",
    "AttackCard",
    "AttackConfig",
    "Batch",
    "Candidate",
    "Curation",
    "Defense",
    "DefenseCard",
    "DefenseConfig",
    "Edit",
    "Manifest",
    "Objective",
    "Pass",
    "Picture",
    "Probe",
    "Record",
    "Screen",
    "UserError",
    "__version__",
    "run",
]

_HOMES = {
    "attack": ("Attack", "AttackCard", "AttackConfig", "Probe"),
    "defense": (
        "Batch",
        "Candidate",
        "Curation",
        "Defense",
        "DefenseCard",
        "DefenseConfig",
        "Objective",
        "Pass",
        "Screen",
    ),
    "errors": ("UserError",),
    "manifest": ("Edit", "Manifest", "Picture"),
    "records": ("Record",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def run(
    attack: str = "none",
    defense: str = "none",
    tier: str | PathLike[str] = "clipart",
    seed: int = 0,
    out: str | PathLike[str] = "runs",
    settings: Mapping[str, Any] | None = None,
    data: str | PathLike[str] | None = None,
    evaluation: str | None = None,
    device: str = "auto",
    force: bool = False,
    quiet: bool = True,
) -> Record:
    """Run one cell, or read its record if it was run before.

    Args:
        attack: an attack's name, or one of its variants as ``name:variant``.
        defense: likewise, a defence's.
        tier: a tier's name, or the path of a YAML file that declares one.
        seed: of everything random in the cell.
        out: the folder of finished cells.
        settings: dotted fields to override, for example ``{"recipe.epochs": 20, "attack.rate": 0.02}``.
        data: replaces the tier's pairs: a folder, ``hf:NAME`` or ``wds:SHARDS``.
        evaluation: replaces the tier's tasks: ``folder:PATH`` or ``clip-benchmark:NAME``.
        device: "auto", "cpu" or "cuda".
        force: run again even if there is a record.
        quiet: show no progress.

    Returns:
        The record; its ``status`` is "failed", with a reason, if the cell crashed.

    Raises:
        UserError: when a name, a field, the data or the device is wrong, or ``all`` asks for several cells.
    """
    from os import fspath
    from pathlib import Path

    from poisonbench.console import open_board
    from poisonbench.errors import UserError
    from poisonbench.grid import run_grid
    from poisonbench.resolve import Request, resolve
    from poisonbench.store import Store

    source = None if data is None else fspath(data)
    request = Request(
        (attack,), (defense,), fspath(tier), (seed,), settings or {}, source, evaluation, device
    )
    cells, store = resolve(request), Store(Path(out))
    if len(cells) != 1:
        raise UserError(
            f"run makes one cell, and {len(cells)} were asked for; use 'poisonbench run' for a grid"
        )
    with open_board(total=len(cells), quiet=quiet) as board:
        run_grid(cells, store, board, force=force)
    return store.need(cells[0])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'poisonbench' has no attribute '{name}'")
    return getattr(import_module(f"poisonbench.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("poisonbench")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
