"""Tabulate cells that differ in a field or a few: ``python tools/vary_table.py runs --attack backdoor_badnet --by attack.rate``.

A row is one exact configuration over its seeds, and everything else is as the tier has it: a cell that differs from the tier's
defaults in a field that ``--by`` does not name is left out. Pooling, intervals and verdicts are the leaderboard's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from poisonbench.arguments import parse_seeds, split_names
from poisonbench.errors import UserError, did_you_mean
from poisonbench.leaderboard.entries import done, one_per_seed, summarise
from poisonbench.leaderboard.intervals import Count
from poisonbench.leaderboard.keys import canonical, differences, flatten, plugin_key, scale_key
from poisonbench.leaderboard.shelf import published
from poisonbench.records import Record
from poisonbench.validity import UNDEFENDED

if TYPE_CHECKING:
    from poisonbench.cell import Cell

NUMBERS = (
    "seeds", "ASR (95% interval)", "base", "gain", "zero-shot", "of undefended", "neutralised", "own caption", "train s",
)  # fmt: skip
NOTHING = "-"


class Group(NamedTuple):
    """The records of one exact configuration, any seeds, and those of its undefended twins."""

    records: tuple[Record, ...]
    twins: tuple[Record, ...]

    @property
    def names(self) -> tuple[str, str]:
        """Attack and defence as the command line calls them."""
        return self.records[0].attack.full_name, self.records[0].defense.full_name


class Selection(NamedTuple):
    """The records to tabulate, how many others there were, and the fields that kept those out."""

    rows: tuple[Record, ...]
    left_out: int
    in_fields: tuple[str, ...]


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--attack", "attacks", required=True, metavar="NAMES", help="One or several, with commas.")
@click.option(
    "--defense", "defenses", default="", metavar="NAMES", help="Likewise; all that ran if not given."
)
@click.option("--by", "fields", default="", metavar="FIELDS", help="Fields as --set has them: attack.rate.")
@click.option("--seeds", default="", metavar="SEEDS", help="0 or 0,1,2 or 0-2; all that ran if not given.")
@click.option("--tier", default="clipart", show_default=True)
def main(runs: Path, attacks: str, defenses: str, fields: str, seeds: str, tier: str) -> None:
    """Print a markdown table of the cells in RUNS, a runs folder or a folder of published records."""
    try:
        records = [record for record in read(runs, seeds) if record.tier == tier]
        chosen = select(records, split_names([attacks]), split_names([defenses]), split_names([fields]))
        click.echo(table(groups(chosen.rows, records), split_names([fields])))
        if chosen.left_out:
            click.echo(
                f"{chosen.left_out} other cells differ from the defaults in: {', '.join(chosen.in_fields)}",
                err=True,
            )
    except UserError as error:
        raise click.UsageError(str(error)) from None


def read(folder: Path, seeds: str = "") -> list[Record]:
    """The records of a runs folder, or of a folder of published ones, of ``seeds`` if there are any given.

    Raises:
        UserError: names a published file that is no record; a damaged one in a runs folder is left out with a warning.
    """
    from poisonbench.store import Store

    found = list(published(folder).values()) or Store(folder).records()
    wanted = parse_seeds(seeds) if seeds else None
    return [record for record in found if wanted is None or record.seed in wanted]


def select(
    records: Sequence[Record], attacks: Sequence[str], defenses: Sequence[str], by: Sequence[str]
) -> Selection:
    """The cells of ``attacks`` and ``defenses`` (all if empty) that differ from their defaults in ``by`` alone.

    Raises:
        UserError: for a name or a field that no record has, or if no record fits.
    """
    _check(attacks, {record.attack.full_name for record in records}, "--attack")
    of_attacks = [record for record in records if record.attack.full_name in attacks]
    _check(defenses, {record.defense.full_name for record in of_attacks}, "--defense")
    meant = [record for record in of_attacks if not defenses or record.defense.full_name in defenses]
    _check(by, {field for record in meant for field in fields_of(record)}, "--by")
    others = [deviations(fields_of(record), default_of(record)) - set(by) for record in meant]
    rows = [record for record, other in zip(meant, others, strict=True) if not other]
    telling = sorted({field for other in others for field in other})
    if not rows:
        raise UserError(
            f"--by {','.join(by)}: all {len(meant)} cells also differ from the defaults in {', '.join(telling)}"
        )
    return Selection(tuple(rows), len(meant) - len(rows), tuple(telling))


def table(found: Iterable[Group], by: Sequence[str]) -> str:
    """A row per group: attack, defence, the values of the fields ``by``, and the numbers."""
    ordered = sorted(found, key=lambda group: (group.names, _order(group.records[0], by)))
    rows = zip(ordered, labels(ordered, by), strict=True)
    names = [[f"`{name}`" for name in group.names] for group in ordered]
    return markdown(
        ["attack", "defence", "what differs", *NUMBERS],
        [[*name, label, *numbers(group)] for name, (group, label) in zip(names, rows, strict=True)],
    )


def groups(chosen: Iterable[Record], records: Iterable[Record]) -> list[Group]:
    """``chosen`` by exact configuration, each with its undefended twins among ``records``."""
    together: defaultdict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in chosen:
        together[plugin_key(record.attack), plugin_key(record.defense), scale_key(record)].append(record)
    twins: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.defense.name == UNDEFENDED:
            twins[plugin_key(record.attack), scale_key(record)].append(record)
    return [Group(tuple(own), tuple(twins[attack, scale])) for (attack, _, scale), own in together.items()]


def fields_of(record: Record) -> dict[str, Any]:
    """Every field that decides a cell, but its seed, under the name that ``--set`` has for it."""
    return _fields(record.attack.config, record.defense.config, record.config.get("tier", {}))


def fields_asked(cell: Cell) -> dict[str, Any]:
    """The same of a cell that need not have run."""
    return _fields(cell.attack.config, cell.defense.config, cell.tier.model_dump(mode="json"))


def deviations(own: Mapping[str, Any], default: Mapping[str, Any]) -> set[str]:
    """The fields with another value; those that only one side knows, since the code has changed, do not count."""
    return {field for field in own.keys() & default if canonical(own[field]) != canonical(default[field])}


@cache
def defaults(attack: str, defense: str, tier: str) -> dict[str, Any]:
    """The fields of a cell to which nothing was set.

    Raises:
        UserError: for a name that is not known here.
    """
    from poisonbench.resolve import Request, resolve

    [cell] = resolve(Request((attack,), (defense,), tier, device="cpu"))
    return fields_asked(cell)


def default_of(record: Record) -> dict[str, Any]:
    """The fields that the record's cell would have if nothing were set."""
    return defaults(record.attack.full_name, record.defense.full_name, record.tier)


def is_usual(record: Record) -> bool:
    """Whether every field of the record's cell is as it would be if nothing were set."""
    return not deviations(fields_of(record), default_of(record))


def latest(found: Iterable[Group]) -> Group:
    """The group with the record that was finished last."""
    return max(found, key=lambda group: max(record.provenance.finished for record in group.records))


def labels(found: Sequence[Group], by: Sequence[str]) -> list[str]:
    """What differs, per group: the fields ``by``, and whatever else sets apart groups that agree in those."""
    said = []
    for group in found:
        own = fields_of(group.records[0])
        said.append(", ".join(f"{field}={own[field]}" for field in by if field in own) or "nothing")
    alike = defaultdict(list)
    for place, (group, label) in enumerate(zip(found, said, strict=True)):
        alike[group.names, label].append(place)
    for places in alike.values():
        wholes = [
            fields_of(found[place].records[0]) | {"data": found[place].records[0].provenance.data}
            for place in places
        ]
        for place, more in zip(places, differences(wholes), strict=True):
            said[place] += f" ({more})" if more else ""
    return said


def numbers(group: Group) -> list[str]:
    """The cells of a row under ``NUMBERS``; failed seeds are named, and so is a doubt about the attack."""
    entry = summarise(*group)
    doubt = f", {entry.remark}" if entry.verdict in ("invalid", "unjudged") else ""
    return [
        "; ".join([",".join(map(str, entry.seeds)) or NOTHING, *entry.failures]),
        (_with_interval(entry.asr) if entry.asr else NOTHING) + doubt,
        share(entry.base.value if entry.base else None),
        NOTHING if entry.gain is None else f"{entry.gain:+.3f}",
        share(entry.zero_shot.value if entry.zero_shot else None),
        share(entry.retention),
        counted(entry.neutralised),
        share(own_captions(group.records)),
        NOTHING if entry.train_seconds is None else f"{entry.train_seconds:.0f}",
    ]


def own_captions(records: Sequence[Record]) -> float | None:
    """Share of clean rows that the last epoch trained on their own caption, mean over seeds."""
    last = [record.history[-1] for record in done(one_per_seed(records)[0]) if record.history]
    found = [epoch["clean_rows_on_own_caption"] for epoch in last if "clean_rows_on_own_caption" in epoch]
    return fmean(found) if found else None


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar inside a cell is escaped."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def counted(count: Count | None) -> str:
    """1 of 4 as "1/4 = 0.250"."""
    return f"{count.successes}/{count.trials} = {count.value:.3f}" if count else NOTHING


def share(value: float | None) -> str:
    """A share with three digits."""
    return NOTHING if value is None else f"{value:.3f}"


def _fields(attack: Mapping[str, Any], defense: Mapping[str, Any], tier: Mapping[str, Any]) -> dict[str, Any]:
    from poisonbench.resolve import TIER_SECTIONS

    sections = {section: tier.get(section, {}) for section in TIER_SECTIONS}
    return {
        field: value
        for field, value in flatten({"attack": attack, "defense": defense, **sections}).items()
        if value != {}
    }


def _order(record: Record, by: Sequence[str]) -> list[tuple[bool, float, str]]:
    values = [fields_of(record).get(field) for field in by]
    return [(False, float(v), "") if isinstance(v, int | float) else (True, 0.0, str(v)) for v in values]


def _check(given: Iterable[str], known: Iterable[str], flag: str) -> None:
    names = set(known)
    for name in given:
        if name not in names:
            raise UserError(f"{flag} {name}: no record has it; {did_you_mean(name, names)}")


def _with_interval(count: Count) -> str:
    around = count.wilson()
    return f"{counted(count)} ({around.low:.3f}-{around.high:.3f})"


if __name__ == "__main__":
    main()
