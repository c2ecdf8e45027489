"""What a finished cell leaves behind: one JSON record, the source of every number on the leaderboard.

``Stored`` is what is written; ``Record`` adds what depends on other cells and is therefore derived on reading.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from poisonbench.arguments import full_name
from poisonbench.settings import Settings

SCHEMA_VERSION = 1

Number = Annotated[int, Field(ge=0)]


class PluginUse(Settings):
    """A plugin and the full configuration it ran with, and the preset that it was made from if any."""

    name: str
    config: dict[str, Any]
    title: str = ""
    track: str = ""
    reconstruction: str = ""
    variant: str = ""

    @property
    def full_name(self) -> str:
        """How the command line calls it."""
        return full_name(self.name, self.variant)

    @property
    def full_title(self) -> str:
        """How tables call it."""
        return (self.title or self.name) + (f" ({self.variant})" if self.variant else "")


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
    successes: Number
    trials: int = Field(ge=1)
    low: float
    high: float
    base: float
    base_successes: Number
    base_trials: int = Field(ge=1)
    true_class: float | None = None

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if self.successes > self.trials or self.base_successes > self.base_trials:
            raise ValueError("there are more successes than trials")
        counted = (self.successes / self.trials, self.base_successes / self.base_trials)
        if not all(abs(x - y) < 1e-6 for x, y in zip((self.value, self.base), counted, strict=True)):
            raise ValueError("value and base are not the shares that their counts give")
        return self


class AttackRetrieval(Settings):
    """What searching with captions finds, for attacks that want their pictures found.

    Attributes:
        hits: share of the searches with a picture that the attacker wants among the first 1, 5 and 10, keys "1", "5", "10".
        min_rank: mean rank of the best such picture.
        base_hits: the same for captions that the attack leaves alone.
        base_min_rank: likewise.
        n: searches.
    """

    hits: dict[str, float]
    min_rank: float
    base_hits: dict[str, float]
    base_min_rank: float
    n: int


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

    count: Number
    rate: float
    neutralized: Number

    @model_validator(mode="after")
    def _counted(self) -> Self:
        if self.neutralized > self.count:
            raise ValueError("more poisons are neutralized than there were")
        return self


class Failure(Settings):
    """Why a cell, or a candidate of a repair, has no numbers."""

    reason: str
    step: int | None = None


class RepairCandidate(Settings):
    """One model of a repair's sweep, and where it lies between attack and accuracy.

    Only ``validation_accuracy`` decides which is chosen; the numbers below it are measured after the choice.

    Attributes:
        name: of the candidate; the undefended model, where they all start, comes first as "undefended".
        lr: peak learning rate; None for the undefended model.
        seconds: of its training.
        validation_accuracy: top-1 on the validation split; None where it failed.
        chosen: whether the cell's other numbers are of this model.
        failure: why it has no numbers.
        zero_shot: top-1 on the headline task.
        asr: attack success rate, where the attack has a goal.
        base: how often the same model gives the goal without the attack's input.
    """

    name: str
    lr: float | None = None
    seconds: float = 0.0
    validation_accuracy: float | None = None
    chosen: bool = False
    failure: Failure | None = None
    zero_shot: float | None = None
    asr: float | None = None
    base: float | None = None


class Detection(Settings):
    """How well a filter's scores tell the poisoned training rows from the clean ones; None where there is no poison.

    Attributes:
        auroc: probability that a poisoned row is scored above a clean one, ties counted half.
        average_precision: area under the precision-recall curve, as a step function.
        recall: per removal budget in percent of the rows, keys "1", "2", "5", "10": the share of the poisons among so many
            most suspicious rows, ties broken at random; empty where there is no poison.
        removed: rows that the defence removed.
        removed_poisons: poisoned rows among them.
    """

    auroc: float | None = None
    average_precision: float | None = None
    recall: dict[str, float] = Field(default_factory=dict)
    removed: Number
    removed_poisons: Number

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if (self.auroc is None) != (self.average_precision is None):
            raise ValueError("auroc and average_precision are measured together")
        return self


class Screening(Settings):
    """How well a detector tells attacked inputs from clean ones; None where nothing is attacked.

    Attributes:
        auroc: probability that an attacked input is scored above a clean image of the headline task, ties counted half.
        false_positive_rate: share of the headline task's clean images that are flagged.
        asr_at_threshold: attack success that is left when flagged inputs count as not attacked.
        clean: images behind the false positive rate.
        attacked: attacked inputs behind the others.
    """

    auroc: float | None = None
    false_positive_rate: float
    asr_at_threshold: float | None = None
    clean: Number
    attacked: Number

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if (self.auroc is None) != (self.asr_at_threshold is None):
            raise ValueError("auroc and asr_at_threshold are measured together")
        return self


class Cost(Settings):
    """What the cell cost.

    Attributes:
        train_seconds: the training loop, everything the defence trains included; what killed processes did up to their
            last checkpoint counts.
        curation_seconds: of these, what the defence spent before the loop: scoring rows, and training a model for it.
        pairs_per_second: training pairs per second of the rest.
        peak_memory_bytes: of the process (CPU) or the device (GPU).
        evaluation_seconds: all metrics.
        total_seconds: the whole cell.
        shared_seconds: training of the undefended model, done once for all. A repair or a screening starts from it and does
            not count it; for any other defence that declares it, it is part of ``curation_seconds``.
    """

    train_seconds: float
    curation_seconds: float = 0.0
    pairs_per_second: float
    peak_memory_bytes: int
    evaluation_seconds: float
    total_seconds: float
    shared_seconds: float = 0.0


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
        precision: of the towers on that device; "" in a record that is older than the question.
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
    precision: Literal["", "fp32", "bf16"] = ""
    platform: str
    finished: str


class Stored(Settings):
    """One cell as it is written to ``record.json``. A failed cell has a ``failure`` and no metrics."""

    schema_version: int = SCHEMA_VERSION
    attack: PluginUse
    defense: PluginUse
    tier: str
    seed: Number
    status: Literal["done", "failed"]
    failure: Failure | None = None
    asr: AttackSuccess | None = None
    attack_retrieval: AttackRetrieval | None = None
    zero_shot: dict[str, Accuracy] = Field(default_factory=dict)
    linear_probe: dict[str, ProbeAccuracy] = Field(default_factory=dict)
    retrieval: Retrieval | None = None
    poison: PoisonCount | None = None
    detection: Detection | None = None
    screening: Screening | None = None
    frontier: list[RepairCandidate] = Field(default_factory=list)
    cost: Cost | None = None
    headline: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    history: list[dict[str, float]] = Field(default_factory=list)
    log: list[str] = Field(default_factory=list)
    provenance: Provenance

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for section in ("attack", "tier"):
            if not isinstance(self.config.get(section, {}), dict):
                raise ValueError(f"config.{section} is no object")
        for one in self.frontier:
            if (one.validation_accuracy is None) == (one.failure is None):
                raise ValueError(f"candidate '{one.name}' must have a validation_accuracy or a failure")
            if (one.asr is None) != (one.base is None):
                raise ValueError(f"candidate '{one.name}' must have asr and base or neither")
        return self


class Record(Stored):
    """A stored cell with what other cells say about it.

    Attributes:
        valid: the attack-validity gate: the undefended twin's ASR is at least 0.5 above its base; None while the twin
            has not run, or where the attack has no goal.
    """

    valid: bool | None = None
