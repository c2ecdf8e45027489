"""Whether an attack works at all: what a record cannot say alone, derived from the cells beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from poisonbench.cell import twin_key
from poisonbench.records import Record, Stored

GATE = 0.5
"""An attack is valid where it succeeds undefended this much more often than its goal comes up anyway."""

UNDEFENDED = "none"

Twins = Mapping[str, Sequence[Stored]]


def derived(stored: Sequence[Stored]) -> list[Record]:
    """``stored`` as records, each judged by its undefended twin if that is among them; in the same order."""
    twins: dict[str, list[Stored]] = {}
    for one in stored:
        if one.defense.name == UNDEFENDED and one.status == "done":
            twins.setdefault(_key(one), []).append(one)
    return [Record(**dict(one), valid=_valid(one, twins)) for one in stored]


def _valid(one: Stored, twins: Twins) -> bool | None:
    twin = max(twins.get(_key(one), ()), key=lambda other: _closeness(other, one), default=None)
    return None if twin is None or twin.asr is None else twin.asr.value >= twin.asr.base + GATE


def _closeness(twin: Stored, one: Stored) -> tuple[bool, bool, str]:
    """The cell itself if it is undefended, else one from the same device, else the latest."""
    return twin is one, twin.config.get("device") == one.config.get("device"), twin.provenance.finished


def _key(stored: Stored) -> str:
    """Attack, tier and seed, and the data as it was: the same folder may have held other pictures."""
    config = stored.config
    shared = twin_key(config.get("attack", {}), config.get("tier", {}), config.get("seed", stored.seed))
    return f"{shared}:{stored.provenance.data}"
