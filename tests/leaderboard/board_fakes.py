"""Made-up records, for tests alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from poisonbench.records import (
    Accuracy,
    AttackSuccess,
    Cost,
    Failure,
    PluginUse,
    PoisonCount,
    ProbeAccuracy,
    Provenance,
    Record,
)

TITLES = {"none": "undefended", "otcclip": "OTCCLIP", "roclip": "RoCLIP", "augment_only": "augmentation only"}
TRACKS = {"none": "none", "augment_only": "none", "roclip": "pre-training", "otcclip": "pre-training"}


def record(
    attack: str = "backdoor_badnet",
    defense: str = "none",
    seed: int = 10,
    *,
    asr: tuple[int, int] | None = (90, 100),
    base: tuple[int, int] = (2, 100),
    top1: float = 0.40,
    probe: float = 0.60,
    neutralized: int = 0,
    seconds: float = 100.0,
    valid: bool | None = True,
    tier: str = "clipart",
    attack_config: Mapping[str, Any] | None = None,
    defense_config: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """A finished record; attack "none" has no attack success and no verdict."""
    clean = attack == "none"
    attack_use = PluginUse(name=attack, config=dict(attack_config or {}), title=attack.replace("_", " "))
    defense_use = PluginUse(
        name=defense,
        config=dict(defense_config or {}),
        title=TITLES.get(defense, defense),
        track=TRACKS.get(defense, "pre-training"),
    )
    settings = {"name": tier, "recipe": dict(recipe or {"epochs": 16})}
    values: dict[str, Any] = {
        "attack": attack_use,
        "defense": defense_use,
        "tier": tier,
        "seed": seed,
        "status": "done",
        "asr": None if clean or asr is None else success(asr, base),
        "zero_shot": {"fluent_superclass": accuracy(top1), "art4apps_category": accuracy(0.11)},
        "linear_probe": {"fluent_superclass": probed(probe)},
        "poison": None if clean else PoisonCount(count=140, rate=0.01, neutralized=neutralized),
        "cost": Cost(
            train_seconds=seconds,
            pairs_per_second=1000.0,
            peak_memory_bytes=900 << 20,
            evaluation_seconds=9.0,
            total_seconds=seconds + 10,
        ),
        "headline": "fluent_superclass",
        "config": {
            "attack": {"name": attack, "config": attack_use.config},
            "defense": {"name": defense, "config": defense_use.config},
            "tier": settings,
            "seed": seed,
            "device": "cpu",
        },
        "provenance": provenance(hash_of(attack_use, defense_use, settings, seed), seed),
        "valid": None if clean else valid,
    }
    return Record(**(values | changes))


def failed(attack: str, defense: str, seed: int, reason: str, **changes: Any) -> Record:
    """A record of a cell that has no numbers."""
    nothing: dict[str, Any] = {
        "status": "failed",
        "asr": None,
        "zero_shot": {},
        "linear_probe": {},
        "poison": None,
        "cost": None,
    }
    return record(attack, defense, seed, failure=Failure(reason=reason, step=7), **(nothing | changes))


def success(asr: tuple[int, int], base: tuple[int, int]) -> AttackSuccess:
    """Counts as they are recorded; the interval is not read by the board, which pools counts."""
    return AttackSuccess(
        value=asr[0] / asr[1],
        successes=asr[0],
        trials=asr[1],
        low=0.0,
        high=1.0,
        base=base[0] / base[1],
        base_successes=base[0],
        base_trials=base[1],
    )


def accuracy(top1: float) -> Accuracy:
    """Zero-shot accuracy with an interval of two points either side."""
    return Accuracy(top1=top1, top5=min(1.0, top1 + 0.3), n=1000, low=top1 - 0.02, high=top1 + 0.02)


def probed(top1: float) -> ProbeAccuracy:
    """Linear-probe accuracy with an interval of three points either side."""
    return ProbeAccuracy(top1=top1, n=500, low=top1 - 0.03, high=top1 + 0.03, untrained=0.2)


def provenance(config_hash: str, seed: int, finished: str = "2026-11-21T12:00:00Z") -> Provenance:
    """Where a made-up number comes from."""
    return Provenance(
        versions={"python": "3.11.9", "poisonbench": "0.1.0", "torch": "2.15.0"},
        commit="0123abc",
        data="feedfacecafe0123",
        poisoned_data="beadfeed00112233",
        config_hash=config_hash,
        seeds={"cell": seed},
        device="cpu",
        platform="Linux x86_64",
        finished=finished,
    )


def hash_of(*parts: Any) -> str:
    """Twelve digits that differ where the parts do."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def grid() -> list[Record]:
    """Two attacks and the clean control against four defences on three seeds, with every kind of trouble."""
    shots = {"none": 0.47, "augment_only": 0.45, "roclip": 0.36, "otcclip": 0.46}
    hits = {"none": (950, 8), "augment_only": (620, 9), "roclip": (6, 6), "otcclip": (9, 8)}
    kept: Sequence[int] = (10, 11, 12)
    records = []
    for defense, shot in shots.items():
        k, b = hits[defense]
        for seed in kept:
            drift = (seed - 11) * 0.008
            common: dict[str, Any] = {
                "top1": shot + drift,
                "probe": shot + 0.15 + drift,
                "seconds": 200.0 + 30 * len(defense),
            }
            gone = {"roclip": 120, "otcclip": 131}.get(defense, 0)
            records.append(
                record(
                    "backdoor_badnet",
                    defense,
                    seed,
                    asr=(k + seed, 1000),
                    base=(b, 1000),
                    neutralized=gone,
                    **common,
                )
            )
            records.append(record("none", defense, seed, **common))
            if defense not in ("augment_only", "roclip"):
                records.append(
                    record(
                        "targeted",
                        defense,
                        seed,
                        asr=(15 if defense == "none" else 1, 16),
                        base=(3, 64),
                        neutralized=gone,
                        **common,
                    )
                )
    records.append(failed("targeted", "roclip", 10, "loss is not a number at step 7"))
    return records
