"""What a finished cell leaves behind: one JSON record, the source of every number on the leaderboard.

``Stored`` is what is written; ``Record`` adds what depends on other cells and is therefore derived on reading.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from poisonbench.settings import Settings

SCHEMA_VERSION = 1


class PluginUse(Settings):
    """A plugin and the full configuration it ran with."""

    name: str
    config: dict[str, Any]
    title: str = ""
    track: str = ""
    reconstruction: str = ""


class AttackSuccess(Settings):
    """Attack success rate over images whose true class is not the target.

    Attributes:
        value: successes / trials.
        successes: attacked images classified as the attacker's goal.
        trials: attacked images.
        low: lower end of the 95% Wilson interval.
        high: upper end.
        base: how often the same model gives the goal without the attack's input.
        base_successes: controls classified as the goal.
        base_trials: controls.
        true_class: share of attacked images still classified as their true class, where that class is known.
    """

    value: float
    successes: int
    trials: int
    low: float
    high: float
    base: float
    base_successes: int
    base_trials: int
    true_class: float | None = None


class Accuracy(Settings):
    """Zero-shot accuracy on one task; the interval resamples concepts, since twins are not independent."""

    top1: float
    top5: float
    n: int
    low: float
    high: float


class ProbeAccuracy(Settings):
    """Linear-probe accuracy on one task's held-out concepts, beside the probe of the untrained network."""

    top1: float
    n: int
    low: float
    high: float
    untrained: float


class Retrieval(Settings):
    """Recall at 1, 5 and 10 on the validation pairs, keys "1", "5", "10"."""

    image_to_text: dict[str, float]
    text_to_image: dict[str, float]
    n: int


class PoisonCount(Settings):
    """How much poison there was, and what the defence did to it.

    Attributes:
        count: poisoned rows.
        rate: share of the poisoned training set.
        neutralized: poisoned rows that were removed, or trained in the last epoch without a caption that names the target.
    """

    count: int
    rate: float
    neutralized: int


class Cost(Settings):
    """What the cell cost.

    Attributes:
        train_seconds: the training loop, everything the defence trains included.
        pairs_per_second: training pairs per second of it.
        peak_memory_bytes: of the process (CPU) or the device (GPU).
        evaluation_seconds: all metrics.
        total_seconds: the whole cell.
    """

    train_seconds: float
    pairs_per_second: float
    peak_memory_bytes: int
    evaluation_seconds: float
    total_seconds: float


class Provenance(Settings):
    """Where the numbers come from.

    Attributes:
        versions: of Python, poisonbench and the libraries that shape results.
        commit: of the repository the code ran from, with "+dirty" if it had local changes, or "" outside a repository.
        data: fingerprint of the clean data.
        poisoned_data: fingerprint of the poisoned training pairs.
        config_hash: the cell's identity.
        seeds: purpose to seed.
        device: "cpu" or the GPU's name.
        platform: operating system and processor.
        finished: UTC time, ISO 8601.
    """

    versions: dict[str, str]
    commit: str
    data: str
    poisoned_data: str
    config_hash: str
    seeds: dict[str, int]
    device: str
    platform: str
    finished: str


class Failure(Settings):
    """Why a cell has no numbers."""

    reason: str
    step: int | None = None


class Stored(Settings):
    """One cell as it is written to ``record.json``. A failed cell has a ``failure`` and no metrics."""

    schema_version: int = SCHEMA_VERSION
    attack: PluginUse
    defense: PluginUse
    tier: str
    seed: int
    status: Literal["done", "failed"]
    failure: Failure | None = None
    asr: AttackSuccess | None = None
    zero_shot: dict[str, Accuracy] = Field(default_factory=dict)
    linear_probe: dict[str, ProbeAccuracy] = Field(default_factory=dict)
    retrieval: Retrieval | None = None
    poison: PoisonCount | None = None
    cost: Cost | None = None
    headline: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    history: list[dict[str, float]] = Field(default_factory=list)
    log: list[str] = Field(default_factory=list)
    provenance: Provenance


class Record(Stored):
    """A stored cell with what other cells say about it.

    Attributes:
        valid: the attack-validity gate: the undefended twin's ASR is at least 0.5 above its base; None while the twin
            has not run, or where the attack has no goal.
    """

    valid: bool | None = None
