"""Where a number comes from: versions, commit, machine and seeds."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from poisonbench.cell import Cell
from poisonbench.records import Provenance
from poisonbench.tier import Precision

PACKAGES = (
    "poisonbench",
    "torch",
    "open_clip_torch",
    "timm",
    "clip-benchmark",
    "pot",
    "numpy",
    "scikit-learn",
    "scipy",
    "datasets",
)


def provenance(cell: Cell, data: str, poisoned_data: str) -> Provenance:
    """The provenance of a cell that ran just now."""
    return Provenance(
        versions=versions(), commit=commit(), data=data, poisoned_data=poisoned_data, config_hash=cell.identity,
        seeds={"cell": cell.seed}, device=device_name(cell.device),
        precision=precision_of(cell), platform=f"{platform.system()} {platform.machine()}",
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def commit() -> str:
    """The commit of the repository that the package runs from, "+dirty" with local changes, "" outside a repository."""
    here = Path(__file__).parent
    try:
        _git(
            here, "ls-files", "--error-unmatch", Path(__file__).name
        )  # not a repository around an environment
        head = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+dirty" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def device_name(device: str) -> str:
    """The GPU's product name, or just "cpu"."""
    if device == "cpu":
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name(device))


def precision_of(cell: Cell) -> Precision:
    """What the cell's towers are computed in on its device."""
    from poisonbench.precision import precision_on

    return precision_on(cell.device, cell.tier.recipe.precision)
