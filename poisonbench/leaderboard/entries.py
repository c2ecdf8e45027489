"""One cell of the table: what an attack did to a defence, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from poisonbench.leaderboard.intervals import Count, Estimate, over_seeds, pooled
from poisonbench.records import Record
from poisonbench.validity import nearest

Verdict = Literal["valid", "invalid", "unjudged", "no goal", "failed", "not run"]


@dataclass(frozen=True)
class Entry:
    """An attack against a defence, summarised over its seeds.

    Attributes:
        verdict: "valid" numbers may be compared; all others say why not.
        remark: the verdict for people, empty for numbers that need none.
        records: the records behind the numbers, one per seed, failed ones included.
        superseded: older records of the same seeds, shown but not counted.
        asr: attacked inputs that met the goal, pooled over seeds.
        base: the same without the attack's input.
        zero_shot: top-1 on the headline task, mean over seeds.
        probe: linear-probe top-1 on the headline task, mean over seeds.
        retention: zero-shot over the undefended twins', on the seeds that both have and on the same poisons.
        neutralised: poisons removed or re-captioned.
        detection: AUROC of a filter's scores over training rows, mean over seeds.
        screening: AUROC of a detector's scores over inputs, mean over seeds.
        false_positives: share of clean inputs that a detector flags, mean over seeds.
        train_seconds: mean over seeds.
    """

    verdict: Verdict
    remark: str = ""
    records: tuple[Record, ...] = ()
    superseded: tuple[Record, ...] = ()
    asr: Count | None = None
    base: Count | None = None
    zero_shot: Estimate | None = None
    probe: Estimate | None = None
    retention: float | None = None
    neutralised: Count | None = None
    detection: float | None = None
    screening: float | None = None
    false_positives: float | None = None
    train_seconds: float | None = None

    @property
    def gain(self) -> float | None:
        """ASR minus base."""
        return self.asr.value - self.base.value if self.asr and self.base else None

    @property
    def ranked(self) -> bool:
        """Whether the attack success rate may count for the defence."""
        return self.verdict == "valid" and self.gain is not None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds behind the numbers."""
        return tuple(record.seed for record in done(self.records))

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per failed seed."""
        return tuple(
            f"seed {record.seed} failed: {reason(record)}"
            for record in self.records
            if record.status == "failed"
        )


def summarise(records: Sequence[Record], twins: Sequence[Record]) -> Entry:
    """One entry from all records of an attack and a defence.

    Args:
        records: of one row and one column, any seeds.
        twins: the undefended records of the same column.
    """
    kept, superseded = one_per_seed(records)
    finished = done(kept)
    if not finished:
        verdict: Verdict = "failed" if kept else "not run"
        return Entry(verdict, _failures(kept) or "not run", kept, superseded)
    verdict, remark = _judge(finished)
    successes = [record.asr for record in finished if record.asr]
    poisons = [record.poison for record in finished if record.poison]
    costs = [record.cost.train_seconds for record in finished if record.cost]
    return Entry(
        verdict,
        remark,
        kept,
        superseded,
        asr=pooled([(asr.successes, asr.trials) for asr in successes]),
        base=pooled([(asr.base_successes, asr.base_trials) for asr in successes]),
        zero_shot=over_seeds([shot for record in finished if (shot := zero_shot(record))]),
        probe=over_seeds([probe for record in finished if (probe := _probe(record))]),
        retention=_retention(finished, done(twins)),
        neutralised=pooled([(poison.neutralized, poison.count) for poison in poisons]),
        detection=_mean([record.detection.auroc for record in finished if record.detection]),
        screening=_mean([record.screening.auroc for record in finished if record.screening]),
        false_positives=_mean(
            [record.screening.false_positive_rate for record in finished if record.screening]
        ),
        train_seconds=fmean(costs) if costs else None,
    )


def one_per_seed(records: Sequence[Record]) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """The record that counts for each seed (finished before failed, then the latest), and the rest."""
    newest_last = sorted(
        records, key=lambda r: (r.status == "done", r.provenance.finished, r.provenance.config_hash)
    )
    chosen = {record.seed: record for record in newest_last}
    superseded = tuple(record for record in newest_last if chosen[record.seed] is not record)
    return tuple(chosen[seed] for seed in sorted(chosen)), superseded


def done(records: Sequence[Record]) -> tuple[Record, ...]:
    """The records that have numbers."""
    return tuple(record for record in records if record.status == "done")


def zero_shot(record: Record) -> Estimate | None:
    """Zero-shot top-1 on the record's headline task."""
    task = record.zero_shot.get(record.headline)
    return Estimate(task.top1, task.low, task.high) if task else None


def reason(record: Record) -> str:
    """Why a record has no numbers."""
    return record.failure.reason if record.failure else "no reason was recorded"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _probe(record: Record) -> Estimate | None:
    task = record.linear_probe.get(record.headline)
    return Estimate(task.top1, task.low, task.high) if task else None


def _retention(records: Sequence[Record], twins: Sequence[Record]) -> float | None:
    ours = theirs = 0.0
    for record in records:
        twin = nearest([one for one in twins if one.seed == record.seed], record)
        if twin and (kept := zero_shot(record)) and (whole := zero_shot(twin)):
            ours, theirs = ours + kept.value, theirs + whole.value
    return ours / theirs if theirs else None


def _judge(records: Sequence[Record]) -> tuple[Verdict, str]:
    """The validity gate over seeds: one seed without a working attack spoils the pooled number."""
    attacked = [record for record in records if record.asr]
    if not attacked:
        return "no goal", ""
    dead = [record.seed for record in attacked if record.valid is False]
    if dead:
        return "invalid", "attack invalid" + _on(dead, attacked)
    alone = [record.seed for record in attacked if record.valid is None]
    if alone:
        return "unjudged", "twin not run" + _on(alone, attacked)
    return "valid", ""


def _on(seeds: Sequence[int], records: Sequence[Record]) -> str:
    if len(seeds) == len(records):
        return ""
    return f" (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"


def _failures(records: Sequence[Record]) -> str:
    reasons = {reason(record): record.seed for record in records}
    return f"failed: {'; '.join(reasons)}" if reasons else ""
