"""How an entry's numbers look: text, a colour step and the value that a column is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poisonbench.leaderboard.board import KEEP, Column
from poisonbench.leaderboard.entries import Entry
from poisonbench.leaderboard.intervals import Estimate

# Upper ends of the colour steps: 3 points is the bar of the benchmark, 50 points the validity gate.
GAIN_STEPS = (0.03, 0.10, 0.25, 0.50)
# Lower ends: 95% is the bar, 90% the flag.
KEEP_STEPS = (0.98, 0.95, KEEP, 0.75)
NOTHING = "–"

MEASURES = {
    "asr": "ASR",
    "gain": "Gain",
    "zero-shot": "Zero-shot",
    "probe": "Probe",
    "poison": "Neutralised",
    "train": "Training",
}
_WITHOUT_POISON = ("zero-shot", "probe", "train")


@dataclass(frozen=True)
class Shown:
    """One number on the page.

    Attributes:
        measure: key of ``MEASURES``.
        text: the number.
        lines: small print below it.
        value: what the column is sorted by; None sorts last.
        tone: CSS class of the cell.
        flag: a warning below it.
    """

    measure: str
    text: str = NOTHING
    lines: tuple[str, ...] = ()
    value: float | None = None
    tone: str = ""
    flag: str = ""


def measures(column: Column) -> tuple[str, ...]:
    """What is measured under an attack."""
    return _WITHOUT_POISON if column.clean else tuple(MEASURES)


def shown(entry: Entry, column: Column) -> tuple[Shown, ...]:
    """An entry's numbers, one per measure of its column."""
    return tuple(_SHOW[measure](entry) for measure in measures(column))


def percent(share: float) -> str:
    """0.1234 as "12.3%"."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """0.1234 as "+12.3"; zero carries no sign."""
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return text.lstrip("+−") if float(text.replace("−", "-")) == 0 else text


def span(estimate: Estimate) -> str:
    """An interval in percent, without the sign."""
    return f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: "4 m 05 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} m {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"


def gain_tone(gain: float) -> str:
    """The colour step of an ASR gain, 0 (the attack fails) to 4."""
    return f"gain-{sum(gain > step for step in GAIN_STEPS)}"


def keep_tone(retention: float) -> str:
    """The colour step of a retention, 0 (nothing lost) to 4."""
    return f"keep-{sum(retention < step for step in KEEP_STEPS)}"


def many(numbers: Sequence[int]) -> str:
    """How many seeds: "3 seeds"."""
    return f"{len(numbers)} seed{'s' if len(numbers) != 1 else ''}"


def runs(numbers: Sequence[int]) -> str:
    """Which seeds: "0, 1, 10–12"."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    parts = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in found]
    return ", ".join(parts)


def _asr(entry: Entry) -> Shown:
    if not entry.asr:
        return Shown("asr", flag="no goal" if entry.verdict == "no goal" else "")
    lines = (span(entry.asr.wilson()), f"{entry.asr.successes:,} / {entry.asr.trials:,}", *_screening(entry))
    value, tone = (entry.asr.value, "") if entry.ranked else (None, "muted")
    return Shown(
        "asr", percent(entry.asr.value), lines, value, tone, "" if entry.gain is not None else entry.remark
    )


def _screening(entry: Entry) -> tuple[str, ...]:
    separated = () if entry.screening is None else (f"AUROC {entry.screening:.3f}",)
    flagged = () if entry.false_positives is None else (f"flags {percent(entry.false_positives)} clean",)
    return (*separated, *flagged)


def _gain(entry: Entry) -> Shown:
    if entry.gain is None or entry.base is None:
        return Shown("gain")
    value, tone = (entry.gain, gain_tone(entry.gain)) if entry.ranked else (None, "muted")
    return Shown(
        "gain", points(entry.gain), (f"base {percent(entry.base.value)}",), value, tone, entry.remark
    )


def _zero_shot(entry: Entry) -> Shown:
    if not entry.zero_shot:
        return Shown("zero-shot")
    kept = entry.retention
    lines = (span(entry.zero_shot), "twin not run" if kept is None else f"keeps {percent(kept)}")
    flag = "utility lost" if kept is not None and kept < KEEP else ""
    tone = "" if kept is None else keep_tone(kept)
    return Shown("zero-shot", percent(entry.zero_shot.value), lines, entry.zero_shot.value, tone, flag)


def _probe(entry: Entry) -> Shown:
    if not entry.probe:
        return Shown("probe")
    return Shown("probe", percent(entry.probe.value), (span(entry.probe),), entry.probe.value)


def _poison(entry: Entry) -> Shown:
    count = entry.neutralised
    if not count:
        return Shown("poison")
    detected = () if entry.detection is None else (f"AUROC {entry.detection:.3f}",)
    lines = (f"{count.successes:,} / {count.trials:,}", *detected)
    return Shown("poison", percent(count.value), lines, count.value)


def _train(entry: Entry) -> Shown:
    text = NOTHING if entry.train_seconds is None else duration(entry.train_seconds)
    failed = len(entry.failures)
    lines = (many(entry.seeds), runs(entry.seeds))
    return Shown("train", text, lines, entry.train_seconds, flag=f"{failed} failed" if failed else "")


_SHOW: dict[str, Callable[[Entry], Shown]] = {
    "asr": _asr,
    "gain": _gain,
    "zero-shot": _zero_shot,
    "probe": _probe,
    "poison": _poison,
    "train": _train,
}
