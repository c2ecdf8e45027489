"""The poisons of a cell: drawn from the attack's configuration, the data and the seed alone, once for all defences."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from poisonbench.attack import Attack
from poisonbench.cell import Cell
from poisonbench.durable import write_atomically
from poisonbench.manifest import Manifest
from poisonbench.randomness import numpy_rng
from poisonbench.source import source_hash
from poisonbench.sources import Data

MANIFEST = "manifest.json"


def poisons(cell: Cell, attack: Attack, data: Data, folder: Path, shared: Path | None = None) -> Manifest:
    """The manifest of ``cell``, also left in ``folder``.

    Args:
        cell: gives the attack's configuration and the seed.
        attack: draws the poisons, unless another cell's are in ``shared``.
        data: the clean data.
        folder: of the cell's files.
        shared: where cells share what they drew, or None for no sharing.
    """
    path = (
        shared / f"{cell.attack.name}--s{cell.seed}--{_key(cell, attack, data)}" / MANIFEST
        if shared
        else None
    )
    text = _found(path) if path else None
    manifest = Manifest.model_validate_json(text) if text else drawn(cell, attack, data)
    text = manifest.model_dump_json(exclude_defaults=True)
    if path and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    (folder / MANIFEST).write_text(text)
    return manifest


def drawn(cell: Cell, attack: Attack, data: Data) -> Manifest:
    """The manifest of ``cell``, written nowhere."""
    rng = numpy_rng(cell.seed, "poison", cell.attack.name, _settings(cell), data.fingerprint)
    return attack.poison(data.train, data.assets, rng)


def _found(path: Path) -> str | None:
    """What is written there, unless it is no manifest."""
    try:
        text = path.read_text(encoding="utf-8")
        Manifest.model_validate_json(text)
    except (OSError, ValueError):
        path.unlink(missing_ok=True)
        return None
    return text


def _key(cell: Cell, attack: Attack, data: Data) -> str:
    """Everything that decides the poisons: code, attack, tier, data and seed."""
    tier = cell.tier.model_dump_json(include={"data", "model"})
    attack_text = cell.attack.model_dump_json()
    parts = (source_hash(type(attack)), attack_text, tier, data.fingerprint, cell.seed)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _settings(cell: Cell) -> str:
    return json.dumps(cell.attack.config, sort_keys=True)
