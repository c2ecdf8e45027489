"""Whether an attack works at all: what a record cannot say alone, derived from the cells beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from poisonbench.cell import twin_key
from poisonbench.records import Record, Stored

GATE = 0.5
"""An attack is valid where it succeeds undefended this much more often than its goal comes up anyway."""

UNDEFENDED = "none"

S = TypeVar("S", bound=Stored)

Twins = Mapping[str, Sequence[Stored]]


def derived(stored: Sequence[Stored]) -> list[Record]:
    """``stored`` as records, each judged by its undefended twin if that is among them; in the same order."""
    twins: dict[str, list[Stored]] = {}
    for one in stored:
        if one.defense.name == UNDEFENDED and one.status == "done":
            twins.setdefault(_key(one), []).append(one)
    return [Record(**dict(one), valid=_valid(one, twins)) for one in stored]


def nearest(twins: Iterable[S], one: Stored) -> S | None:
    """Of undefended records of the same cell, the one to compare ``one`` with, or None if none had the same poisons.

    The cell itself if it is undefended, else one from the same device, else of the same precision, else the latest.
    """
    poisons = one.provenance.poisoned_data
    same = [twin for twin in twins if twin.provenance.poisoned_data == poisons]
    return max(same, key=lambda twin: _closeness(twin, one), default=None)


def _valid(one: Stored, twins: Twins) -> bool | None:
    twin = nearest(twins.get(_key(one), ()), one)
    return None if twin is None or twin.asr is None else twin.asr.value >= twin.asr.base + GATE


def _closeness(twin: Stored, one: Stored) -> tuple[bool, bool, bool, str]:
    there, here = twin.provenance, one.provenance
    device = twin.config.get("device") == one.config.get("device")
    return twin is one, device, there.precision == here.precision, there.finished


def _key(stored: Stored) -> str:
    """Attack, tier and seed, and the data as it was: the same folder may have held other pictures."""
    config = stored.config
    shared = twin_key(config.get("attack", {}), config.get("tier", {}), config.get("seed", stored.seed))
    return f"{shared}:{stored.provenance.data}"
