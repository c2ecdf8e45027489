"""The single door to data: from a tier's declaration to pairs, tasks and targets."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from poisonbench.errors import UserError
from poisonbench.progress import Progress
from poisonbench.sources import Data
from poisonbench.sources.embedded import open_clipart, synonyms
from poisonbench.sources.evaluations import open_evaluations
from poisonbench.sources.hub import open_folder, open_hub
from poisonbench.sources.rows import RawRows, sound_rows
from poisonbench.sources.shards import open_shards
from poisonbench.tier import DataSpec


def open_data(spec: DataSpec, side: int, progress: Progress | None = None) -> Data:
    """Everything that ``spec`` declares, its images as squares of ``side`` pixels.

    Args:
        spec: where pairs and tasks come from.
        side: pixels per image side.
        progress: is told which images are being checked.

    Raises:
        UserError: when something does not exist, cannot be read or has no captions.
    """
    progress = progress or Progress()
    if spec.source == "none":
        raise UserError(
            "this tier brings no data; give it with --data FOLDER, --data hf:NAME or --data wds:SHARDS"
        )
    if spec.source != "clipart":
        return _own_data(spec, side, progress)
    data = open_clipart(side, spec.limit)
    if spec.evaluation == ("clipart",):
        return data
    judged = open_evaluations(spec.evaluation, side, progress)
    return replace(
        data,
        tasks=judged.tasks,
        targets=judged.targets or data.targets,
        skipped=judged.skipped,
        fingerprint=_fingerprint(data.fingerprint, judged.fingerprint),
    )


def _own_data(spec: DataSpec, side: int, progress: Progress) -> Data:
    raw = _raw_rows(spec.source, progress)
    judged = open_evaluations(spec.evaluation, side, progress)  # before the long pass over all images
    rows = sound_rows(raw, spec, side, progress)
    return Data(
        train=rows.pairs["train"],
        clean=rows.pairs["clean"],
        validation=rows.pairs["validation"],
        tasks=judged.tasks,
        targets=judged.targets,
        validation_task=None,
        synonyms=synonyms(),
        skipped=(*rows.skipped, *judged.skipped),
        fingerprint=_fingerprint(*(pairs.fingerprint for pairs in rows.pairs.values()), judged.fingerprint),
    )


def _raw_rows(source: str, progress: Progress) -> RawRows:
    if source.startswith("hf:"):
        return open_hub(source.removeprefix("hf:"))
    if source.startswith("wds:"):
        return open_shards(source.removeprefix("wds:"), progress)
    return open_folder(source)


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
