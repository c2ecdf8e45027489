"""The code that shapes a result, as one hash: part of a cell's identity."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
CORE = (
    "augment*",
    "backdoor.py",
    "curating.py",
    "defense.py",
    "evaluation",
    "filtering.py",
    "lab.py",
    "loader.py",
    "losses.py",
    "manifest.py",
    "models",
    "naming.py",
    "neutralized.py",
    "optimizer.py",
    "pairs.py",
    "poisoning.py",
    "pool.py",
    "precision.py",
    "randomness.py",
    "repair.py",
    "resumption.py",
    "screening.py",
    "sources/*.py",
    "sweep.py",
    "tasks.py",
    "tokens.py",
    "towers.py",
    "training.py",
    "trial.py",
    "twin.py",
    "undefended.py",
    "triggers",
)
"""What decides a number. Data has a fingerprint of its own; records, tables and pages may change freely."""

SHELVES = ("poisonbench.attacks.", "poisonbench.defenses.")
"""Packages whose modules are plugins of their own, so that a change of one does not touch the others."""


def source_hash(*plugins: type) -> str:
    """A 12-digit hash over the sources of the core, of ``plugins``, and of plugins that they inherit from.

    What a plugin only imports from another plugin is not followed.
    """
    roots = sorted({root for plugin in plugins for root in _roots(plugin)})
    parts = (_core_digest(), *(_digest(_sources_of(root)) for root in roots))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


@cache
def _core_digest() -> str:
    found = (path for pattern in CORE for path in sorted(PACKAGE.glob(pattern)))
    return _digest(file for path in found for file in (_sources_in(path) if path.is_dir() else [path]))


def _roots(plugin: type) -> set[str]:
    own = _root(plugin.__module__)
    bases = {_root(base.__module__) for base in plugin.__mro__}
    return {root for root in bases if root == own or root.startswith(SHELVES)}


def _root(module: str) -> str:
    depth = 3 if module.startswith(SHELVES) else 1
    return ".".join(module.split(".")[:depth])


def _sources_of(root: str) -> list[Path]:
    module = sys.modules[root]
    if folders := getattr(module, "__path__", None):
        return [file for folder in folders for file in _sources_in(Path(folder))]
    file = getattr(module, "__file__", None)
    return [Path(file)] if file else []


def _sources_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".json", ".yaml"})


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\x00" + path.read_bytes() + b"\x00")
    return digest.hexdigest()
