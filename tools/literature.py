"""What the literature reports of attacks and defences, each with the rule by which the records are judged.

The rules and their thresholds are ours; a rule is silent (None) where its figures were not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from poisonbench.leaderboard.entries import Entry

LOW_RATE = 0.01
"""Share of poisons that is still called a low rate."""


@dataclass(frozen=True)
class Sight:
    """One attack against one defence.

    Attributes:
        entry: the cell.
        undefended: the same attack on the same seeds without a defence.
        patch: the same defence against the plain patch, ``backdoor_badnet``, if that was run.
    """

    entry: Entry
    undefended: Entry
    patch: Entry | None = None


Judge = Callable[[Sight], bool | None]


@dataclass(frozen=True)
class Tendency:
    """Something that the literature reports.

    Attributes:
        title: the tendency in a sentence.
        reported: what is reported, and where.
        seen_where: the rule in words.
        attacks: with each of the defences, the cells that count.
        defenses: likewise.
        judge: the rule.
        low_rate: take cells with a rate of at most ``LOW_RATE``, not those at the tier's rate.
        difference: why the tier shows it less than the literature does, where it does.
    """

    title: str
    reported: str
    seen_where: str
    attacks: tuple[str, ...]
    defenses: tuple[str, ...]
    judge: Judge
    low_rate: bool = False
    difference: str = ""


def halved_at_a_cost(sight: Sight) -> bool | None:
    """RoCLIP's tendency."""
    gain, before, kept = sight.entry.gain, sight.undefended.gain, sight.entry.retention
    if not sight.entry.ranked or gain is None or before is None or kept is None:
        return None
    return gain <= before / 2 and kept < 0.98


def survives(sight: Sight) -> bool | None:
    """CleanCLIP's tendency."""
    return sight.entry.gain >= 0.25 if sight.entry.ranked and sight.entry.gain is not None else None


def weaker_than_on_the_patch(sight: Sight) -> bool | None:
    """SAFECLIP's tendency."""
    here, there = sight.entry.neutralised, sight.patch.neutralised if sight.patch else None
    return here.value <= there.value - 0.1 if sight.entry.ranked and here and there else None


def found(sight: Sight) -> bool | None:
    """The filters' tendency; it does not ask whether the attack works, only whether its rows are found."""
    return None if sight.entry.detection is None else sight.entry.detection >= 0.9


def kept_or_paid_for(sight: Sight) -> bool | None:
    """Fine-tuning's tendency."""
    gain, kept = sight.entry.gain, sight.entry.retention
    return gain >= 0.2 or kept < 0.9 if sight.entry.ranked and gain is not None and kept is not None else None


def mostly_there(sight: Sight) -> bool | None:
    """Augmentation's tendency."""
    gain, before = sight.entry.gain, sight.undefended.gain
    return gain >= before / 2 if sight.entry.ranked and gain is not None and before is not None else None


TENDENCIES = (
    Tendency(
        title="RoCLIP lowers attack success at a cost in zero-shot accuracy",
        reported="Targeted poisoning falls from 93.75% to 12.5% and backdoors to 0%, at similar zero-shot accuracy; up to 1% "
        "poisons are held at 12.5% by more frequent matching, for some utility (RoCLIP, arXiv 2303.06854, abstract).",
        seen_where="the gain is at most half of the undefended one, and zero-shot below 0.98 of it",
        attacks=("backdoor_badnet", "targeted"),
        defenses=("roclip",),
        judge=halved_at_a_cost,
    ),
    Tendency(
        title="CleanCLIP fails on structured triggers",
        reported="After CleanCLIP on OpenAI's RN50 the ASR is 62.3% for a patch of stripes, 61.8% for blended stripes and 48.7% "
        "for triangles, but 14.5% for a random patch and 19.5% for blended noise (PAR, arXiv 2412.00727, by a secondary note).",
        seen_where="a gain of 0.25 or more is left",
        attacks=("backdoor_badnet:stripes", "backdoor_blended:stripes", "backdoor_blended:triangles"),
        defenses=("cleanclip",),
        judge=survives,
    ),
    Tendency(
        title="SAFECLIP's split is weak for triggers that cover the image",
        reported="Used as a detector on CC3M, its similarity has an AUROC of 84.4% on a patch, 67.3% on WaNet and 64.0% on a "
        "photo filter (Huang et al., arXiv 2502.01385, by a secondary note).",
        seen_where="the share of poisons outside the safe set at the end is at least 0.1 below that of `backdoor_badnet`",
        attacks=("backdoor_blended", "backdoor_filter", "backdoor_sig", "backdoor_wanet"),
        defenses=("safeclip",),
        judge=weaker_than_on_the_patch,
        difference="After nine epochs a third of the pairs is safe. Most poisons are outside then whatever their trigger, and a "
        "tenth is a coarse step: more poisons of each of these triggers are inside than of the patch, and what is inside "
        "suffices, since all gains are larger than on the patch.",
    ),
    Tendency(
        title="Local outlier filters find repeated patches at low rates",
        reported="DAO's AUROC on a patch in 0.01% of CC3M is 99.1%; the scores depend on the poisons in a batch, which at "
        "high rates become each other's neighbours (Huang et al., arXiv 2502.01385, by a secondary note).",
        seen_where=f"the AUROC over training rows is at least 0.9, at {LOW_RATE:.0%} poisons or fewer",
        attacks=("backdoor_badnet",),
        defenses=("dao", "slof", "k_dist"),
        judge=found,
        low_rate=True,
        difference="A rate that is low and an attack that works do not come together on this tier: at 0.5% the model does not "
        "learn the patch, so that its poisons are no cluster, and at 3%, where it has, DAO finds all of them. The figures are in "
        "[docs/defenses/dao.md](defenses/dao.md).",
    ),
    Tendency(
        title="Fine-tuning on clean pairs alone keeps the backdoor, or pays for its removal",
        reported="With CLIP's loss alone, an ASR below 5% costs 3.6 of 16.0 points of accuracy on CC3M, and on CC6M no learning "
        "rate comes below 20% (a replication of CleanCLIP, arXiv 2311.14948).",
        seen_where="a gain of 0.2 or more is left, or less than 0.9 of the zero-shot accuracy",
        attacks=("backdoor_badnet", "backdoor_blended", "targeted"),
        defenses=("finetune",),
        judge=kept_or_paid_for,
    ),
    Tendency(
        title="Augmentation alone does little",
        reported="No number is known to us. Reviewers of SAFECLIP (arXiv 2310.05862) object that the undefended CLIP lacks the "
        "defence's augmentation; this is what must hold for the defence to have the credit.",
        seen_where="at least half of the undefended gain is left",
        attacks=(
            "backdoor_badnet",
            "backdoor_filter",
            "backdoor_label_consistent",
            "backdoor_wanet",
            "targeted",
        ),
        defenses=("augment_only",),
        judge=mostly_there,
    ),
)
