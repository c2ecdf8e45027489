"""What the literature reports beside what the records show: ``python -m tools.tendencies RECORDS --out docs/tendencies.md``.

The tendencies and their rules are declared in literature.py. Nothing is judged that was not measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import click

from poisonbench.durable import write_atomically
from poisonbench.errors import UserError
from poisonbench.leaderboard.entries import summarise
from poisonbench.records import Record
from tools.literature import LOW_RATE, TENDENCIES, Sight, Tendency
from tools.vary_table import (
    NOTHING,
    Group,
    counted,
    default_of,
    deviations,
    fields_of,
    groups,
    latest,
    markdown,
    read,
    share,
)  # fmt: skip

TIER, PATCH, RATE = "clipart", "backdoor_badnet", "attack.rate"
NOT_MEASURED, WIDTH = "not measured", 120
HEADS = (
    "attack", "defence", "seeds", "undefended ASR", "ASR", "gain", "of zero-shot", "neutralised", "AUROC", "seen",
)  # fmt: skip
OPENING = f"""# What the literature reports, and what the records show

Made by `python -m tools.tendencies leaderboards/records --out docs/tendencies.md` from the records of tier `{TIER}`,
at its settings for attacks and defences. The rules and their thresholds are ours: models, data and budgets of the
papers are others, so a tendency can be seen or not, but no number can be replicated. A cell counts only where the attack
works undefended; for the filters, wherever rows were scored.
"""


@click.command()
@click.argument("records", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The page; printed if not given."
)
def main(records: Path, out: Path | None) -> None:
    """Judge every tendency by RECORDS, a folder of published records or a runs folder."""
    try:
        text = page([record for record in read(records) if record.tier == TIER])
    except UserError as error:
        raise click.UsageError(str(error)) from None
    if out is None:
        click.echo(text, nl=False)
    else:
        write_atomically(out, text)


def page(records: Sequence[Record]) -> str:
    """The whole page: a summary, then every tendency with its cells."""
    summary, sections = [], []
    for tendency in TENDENCIES:
        seen, rows = judged(tendency, records)
        here = verdict(seen)
        summary.append([tendency.title, here])
        sections.append(
            f"## {tendency.title}\n\n{fill(tendency.reported, WIDTH)}\n\n"
            f"Seen where {tendency.seen_where}. Here: **{here}**.\n\n{markdown(HEADS, rows)}\n"
        )
        if tendency.difference:
            sections.append(f"{fill(tendency.difference, WIDTH)}\n")
    return "\n".join([OPENING, markdown(["tendency", "seen here"], summary) + "\n", *sections])


def verdict(seen: Sequence[bool | None]) -> str:
    """Yes, no or not measured over all cells of a tendency, with the counts where they do not agree."""
    known = [one for one in seen if one is not None]
    if not known:
        return NOT_MEASURED
    some = f" in {sum(known)} of {len(known)} cells" if 0 < sum(known) < len(known) else ""
    left = (
        f" ({len(seen) - len(known)} of {len(seen)} cells {NOT_MEASURED})" if len(known) < len(seen) else ""
    )
    return ("yes" if any(known) else "no") + some + left


def judged(tendency: Tendency, records: Sequence[Record]) -> tuple[list[bool | None], list[list[str]]]:
    """The verdict on each cell, and its row."""
    verdicts: list[bool | None] = []
    rows = []
    for attack in tendency.attacks:
        for defense in tendency.defenses:
            for rate, group in cells(attack, defense, records, tendency.low_rate) or [(None, None)]:
                sight = _sight(group, records) if group else None
                verdicts.append(tendency.judge(sight) if sight else None)
                name = f"`{attack}`" if rate is None else f"`{attack}`, {rate:.2%}"
                rows.append([name, f"`{defense}`", *_figures(sight, verdicts[-1])])
    return verdicts, rows


def cells(
    attack: str, defense: str, records: Sequence[Record], low_rate: bool = False
) -> list[tuple[float | None, Group | None]]:
    """The cell at the tier's settings, or one per low rate with its rate; of several by different code the latest."""
    at_rates: defaultdict[float | None, list[Record]] = defaultdict(list)
    for record in records:
        if (record.attack.full_name, record.defense.full_name) == (attack, defense):
            fields = fields_of(record)
            others, rate = deviations(fields, default_of(record)), fields.get(RATE)
            if low_rate and others <= {RATE} and rate is not None and rate <= LOW_RATE:
                at_rates[rate].append(record)
            elif not low_rate and not others:
                at_rates[None].append(record)
    return [
        (rate, latest(groups(at_rates[rate], records))) for rate in sorted(at_rates, key=lambda r: r or 0.0)
    ]


def _sight(group: Group, records: Sequence[Record]) -> Sight:
    entry = summarise(*group)
    twins = [twin for twin in group.twins if twin.seed in entry.seeds]
    patch = [summarise(*cell) for _, cell in cells(PATCH, group.names[1], records) if cell]
    return Sight(entry, summarise(twins, twins), *patch)


def _figures(sight: Sight | None, seen: bool | None) -> list[str]:
    if sight is None:
        return [*[NOTHING] * (len(HEADS) - 3), NOT_MEASURED]
    entry = sight.entry
    doubt = f"{NOT_MEASURED}: {entry.remark}" if entry.remark else NOT_MEASURED
    return [
        ",".join(map(str, entry.seeds)) or NOTHING, counted(sight.undefended.asr), counted(entry.asr),
        NOTHING if entry.gain is None else f"{entry.gain:+.3f}", share(entry.retention), counted(entry.neutralised),
        share(entry.detection), {True: "yes", False: "no", None: doubt}[seen],
    ]  # fmt: skip


if __name__ == "__main__":
    main()
