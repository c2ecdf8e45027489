"""Cells and records without any training; importable by worker processes."""

from __future__ import annotations

import errno
import os
import signal

from poisonbench.cell import Cell
from poisonbench.desk import Desk
from poisonbench.errors import UserError
from poisonbench.progress import Progress
from poisonbench.records import (
    Accuracy,
    AttackSuccess,
    Cost,
    Failure,
    PluginUse,
    PoisonCount,
    ProbeAccuracy,
    Provenance,
    Retrieval,
    Stored,
)
from poisonbench.resolve import Request, resolve
from poisonbench.store import Store
from poisonbench.twin import MODEL, OPTIMIZER, is_shared


def cells(
    attack: str = "backdoor_badnet", defenses: tuple[str, ...] = ("none",), seeds: tuple[int, ...] = (0,)
) -> list[Cell]:
    return resolve(Request((attack,), defenses, "smoke", seeds, device="cpu"))


def stored(
    cell: Cell,
    asr: float = 0.9,
    base: float = 0.1,
    failure: str = "",
    data: str = "art",
    log: tuple[str, ...] = (),
) -> Stored:
    done = not failure
    return Stored(
        attack=PluginUse(name=cell.attack.name, config=cell.attack.config, title="Patch"),
        defense=PluginUse(name=cell.defense.name, config=cell.defense.config, title="Shield", track="none"),
        tier=cell.tier.name,
        seed=cell.seed,
        status="done" if done else "failed",
        failure=Failure(reason=failure, step=7) if failure else None,
        asr=_asr(asr, base) if done and cell.attack.name != "none" else None,
        zero_shot={"shapes": Accuracy(top1=0.5, top5=0.75, n=400, low=0.45, high=0.55)} if done else {},
        linear_probe={"shapes": ProbeAccuracy(top1=0.6, n=400, low=0.55, high=0.65, untrained=0.3)}
        if done
        else {},
        retrieval=Retrieval(image_to_text=_recall(), text_to_image=_recall(), n=100) if done else None,
        poison=PoisonCount(count=100, rate=0.05, neutralized=12) if done else None,
        cost=Cost(
            train_seconds=3,
            pairs_per_second=2000,
            peak_memory_bytes=10**9,
            evaluation_seconds=2,
            total_seconds=6,
        ),
        headline="shapes",
        config=cell.model_dump(mode="json"),
        log=list(log),
        provenance=Provenance(
            versions={"python": "3"},
            commit="",
            data=data,
            poisoned_data="",
            config_hash=cell.identity,
            seeds={"cell": cell.seed},
            device="cpu",
            platform="",
            finished="2026-01-01T00:00:00+00:00",
        ),
    )


def keep(store: Store, cell: Cell, record: Stored) -> None:
    """Put a record into the store without a run."""
    store.root.mkdir(parents=True, exist_ok=True)
    with store.staging(cell) as staged:
        store.commit(cell, staged, record)


def good_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    (desk.folder / "manifest.json").write_text("{}")
    progress.phase("training, epoch 1 of 1", 10)
    progress.advance(10)
    progress.note("a note")
    print("a library that prints")  # noqa: T201
    return stored(cell, log=(f"threads {os.environ.get('OMP_NUM_THREADS')}",))


def sharing_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    """An undefended cell leaves files to start from, another names the folder that it starts from."""
    if cell.defense.name == "none":
        for name in (MODEL, OPTIMIZER):
            (desk.folder / name).touch()
        return stored(cell)
    assert desk.twin is not None and is_shared(desk.twin)
    return stored(cell, log=(f"starts from {desk.twin}",))


def crashing_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    (desk.folder / "manifest.json").write_text("{}")
    raise ValueError("the plugin\nfell over")


def refusing_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    (desk.folder / "manifest.json").write_text("{}")
    raise UserError("target 'vegtable' is not a class; did you mean 'vegetable'?")


def disk_filling_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    (desk.folder / "manifest.json").write_text("{}")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def picky_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    """Only undefended cells are to its taste."""
    return (sharing_trial if cell.defense.name == "none" else refusing_trial)(cell, desk, progress)


def overtaken_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    """While seed 0 is at work, another runner finishes seed 1."""
    if cell.seed == 0:
        [other] = cells(seeds=(1,))
        keep(Store(desk.folder.parent), other, stored(other))
    return good_trial(cell, desk, progress)


def mixed_trial(cell: Cell, desk: Desk, progress: Progress) -> Stored:
    """By seed: 0 goes well, 1 is killed, 2 crashes, 3 is refused."""
    if cell.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return (good_trial, good_trial, crashing_trial, refusing_trial)[cell.seed](cell, desk, progress)


def _asr(value: float, base: float) -> AttackSuccess:
    return AttackSuccess(
        value=value,
        successes=round(100 * value),
        trials=100,
        low=max(0, value - 0.1),
        high=min(1, value + 0.1),
        base=base,
        base_successes=round(100 * base),
        base_trials=100,
        true_class=0.05,
    )


def _recall() -> dict[str, float]:
    return {"1": 0.1, "5": 0.3, "10": 0.5}
