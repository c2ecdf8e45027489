"""What a defence decides before training, decided once: a resumed run reads it back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter

from poisonbench.checkpoint import Saved
from poisonbench.defense import Curation, Defense
from poisonbench.lab import Lab
from poisonbench.pairs import Pairs

CAPTIONS = TypeAdapter(dict[int, tuple[str, ...]])


class Curated(NamedTuple):
    """A decision, and the seconds that it took in all processes; none for a defence that decides nothing."""

    curation: Curation
    seconds: float


def curated(defense: Defense, pairs: Pairs, lab: Lab) -> Curated:
    """``defense``'s decision about ``pairs``, from a checkpoint if an earlier process came to it."""
    slot = lab.checkpoints.slot("curation")
    saved = slot.load(pairs.fingerprint, lab.progress.note) if slot else None
    if saved is not None:
        return Curated(unpacked(saved), float(saved.state["seconds"]))
    inner = lab.during("curate")
    found = defense.curate(pairs, inner)
    decided = not (found.keep is None and found.scores is None and not found.captions)
    seconds = lab.checkpoints.spent if decided else 0.0
    if slot and decided:
        tensors, state = packed(found)
        slot.save(tensors, {**state, "seconds": seconds}, about=pairs.fingerprint)
    inner.checkpoints.drop()
    return Curated(found, seconds)


def packed(curation: Curation) -> Saved:
    """A decision as tensors and plain values."""
    arrays = {"keep": curation.keep, "scores": curation.scores}
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items() if array is not None}
    captions = {str(row): list(texts) for row, texts in curation.captions.items()}
    return Saved(tensors, {"captions": captions})


def unpacked(saved: Saved) -> Curation:
    """The decision that ``packed`` wrote."""
    keep, scores = saved.tensors.get("keep"), saved.tensors.get("scores")
    return Curation(
        keep=None if keep is None else keep.numpy().astype(np.bool_),
        captions=CAPTIONS.validate_python(saved.state["captions"]),
        scores=None if scores is None else scores.numpy(),
    )
