"""Records of real cells with made-up numbers, for the tools that tabulate them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cell_fakes import keep

from poisonbench.cell import Cell
from poisonbench.records import (
    Accuracy,
    AttackSuccess,
    Cost,
    Detection,
    Failure,
    PluginUse,
    PoisonCount,
    ProbeAccuracy,
    Provenance,
    Record,
    Stored,
)
from poisonbench.resolve import Request, resolve
from poisonbench.store import Store
from poisonbench.validity import derived


def ran(
    attack: str = "backdoor_badnet",
    defense: str = "none",
    seed: int = 10,
    *,
    asr: tuple[int, int] = (90, 100),
    base: tuple[int, int] = (2, 100),
    top1: float = 0.4,
    neutralized: int = 0,
    own: float | None = None,
    auroc: float | None = None,
    failure: str = "",
    finished: str = "2026-11-22T00:00:00+00:00",
    settings: Mapping[str, Any] | None = None,
) -> tuple[Cell, Stored]:
    """A cell of tier clipart and its record."""
    request = Request((attack,), (defense,), "clipart", (seed,), settings or {}, device="cpu")
    [cell] = resolve(request)
    done = not failure
    return cell, Stored(
        attack=PluginUse(**cell.attack.model_dump()),
        defense=PluginUse(**cell.defense.model_dump()),
        tier="clipart",
        seed=seed,
        status="done" if done else "failed",
        failure=None if done else Failure(reason=failure),
        asr=_success(asr, base) if done else None,
        zero_shot={"task": Accuracy(top1=top1, top5=1, n=100, low=0, high=1)} if done else {},
        linear_probe={"task": ProbeAccuracy(top1=0.6, n=100, low=0, high=1, untrained=0.2)} if done else {},
        poison=PoisonCount(count=100, rate=0.01, neutralized=neutralized) if done else None,
        detection=None if auroc is None else Detection(auroc=auroc, average_precision=auroc, removed=0, removed_poisons=0),
        cost=_cost(60.0) if done else None,
        headline="task",
        config=cell.model_dump(mode="json"),
        history=[] if own is None else [{"clean_rows_on_own_caption": own}],
        provenance=Provenance(
            versions={}, commit="", data="art", poisoned_data="", config_hash=cell.identity, seeds={"cell": seed},
            device="cpu", platform="", finished=finished,
        ),
    )  # fmt: skip


def judged(*cells: tuple[Cell, Stored]) -> list[Record]:
    """The records as they are read from a folder."""
    return derived([stored for _, stored in cells])


def kept(folder: Path, *cells: tuple[Cell, Stored]) -> Path:
    """A runs folder with the cells in it."""
    for cell, stored in cells:
        keep(Store(folder), cell, stored)
    return folder


def board(folder: Path, *cells: tuple[Cell, Stored]) -> Path:
    """A leaderboard's folder with the cells' records published in it."""
    (folder / "records").mkdir(parents=True)
    for number, (_, stored) in enumerate(cells):
        (folder / "records" / f"{number}.json").write_text(stored.model_dump_json())
    return folder


def rows(table: str) -> list[list[str]]:
    """The cells of a markdown table's rows, without its heads."""
    lines: Sequence[str] = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def _success(asr: tuple[int, int], base: tuple[int, int]) -> AttackSuccess:
    return AttackSuccess(
        value=asr[0] / asr[1], successes=asr[0], trials=asr[1], low=0, high=1,
        base=base[0] / base[1], base_successes=base[0], base_trials=base[1],
    )  # fmt: skip


def _cost(seconds: float) -> Cost:
    return Cost(
        train_seconds=seconds, pairs_per_second=1, peak_memory_bytes=1, evaluation_seconds=1, total_seconds=seconds
    )  # fmt: skip
