"""OTCCLIP's ablations: ``python -m tools.ablation --print`` gives the commands, ``--runs DIR --out README.md`` the table.

The variations are named in ablation.yaml beside this file; ``--set`` gives all of them the same settings, such as a shorter
training. The table is made of whatever records the runs folder holds of them, and stands between two marks, so that nothing else
of the page is touched.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml
from pydantic import Field

from poisonbench.arguments import parse_settings, split_names
from poisonbench.cell import Cell
from poisonbench.durable import write_atomically
from poisonbench.errors import UserError
from poisonbench.records import Record
from poisonbench.resolve import Request, resolve
from poisonbench.settings import Settings, validated
from poisonbench.validity import UNDEFENDED
from tools.vary_table import (
    NOTHING,
    NUMBERS,
    deviations,
    fields_asked,
    fields_of,
    groups,
    latest,
    markdown,
    numbers,
    read,
)

VARIATIONS = Path(__file__).with_name("ablation.yaml")
DEFENSE = "otcclip"
BEGIN, END = "<!-- ablation -->", "<!-- end of ablation -->"
HEADING = "## Ablations"


class Variation(Settings):
    """A named deviation from the tier's settings.

    Attributes:
        label: a few words for the table.
        changes: what ``--set`` is given, field to value; "set" in the file.
        tests: the question that it answers.
    """

    label: str
    changes: dict[str, Any] = Field(default_factory=dict, alias="set")
    tests: str


class Ground(NamedTuple):
    """What all variations have in common.

    Attributes:
        tier: the tier's name.
        seeds: as ``--seeds`` takes them.
        settings: field to value, as ``--set`` takes them.
    """

    tier: str
    seeds: str
    settings: Mapping[str, Any] = {}

    def cell(self, attack: str, defense: str = DEFENSE, changes: Mapping[str, Any] | None = None) -> Cell:
        """What ``changes`` ask for beyond it, on seed 0.

        Raises:
            UserError: for a field or a value that attack, defence or tier do not take.
        """
        settings = {**self.settings, **(changes or {})}
        return resolve(Request((attack,), (defense,), self.tier, settings=settings, device="cpu"))[0]


@click.command()
@click.option("--print", "commands", is_flag=True, help="Print the commands that run the variations.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The page with the table."
)
@click.option("--attack", "attacks", default="backdoor_badnet", show_default=True, metavar="NAMES")
@click.option("--seeds", default="10-12", show_default=True, help="Development seeds.")
@click.option("--tier", default="clipart", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="For all variations.")
def main(
    commands: bool, runs: Path, out: Path | None, attacks: str, seeds: str, tier: str, settings: Sequence[str]
) -> None:
    """Print commands, or write the table of what they left in RUNS into OUT (without OUT: print it)."""
    try:
        found, ground = variations(), Ground(tier, seeds, parse_settings(settings))
        if commands:
            click.echo("\n".join(command_lines(found, attacks, ground, runs)))
            return
        page = section(found, read(runs, seeds), split_names([attacks]), ground)
        if out is None:
            click.echo(page)
        else:
            write_atomically(out, between_marks(out.read_text(encoding="utf-8"), page, out))
    except UserError as error:
        raise click.UsageError(str(error)) from None


def variations(path: Path = VARIATIONS) -> list[Variation]:
    """The variations in their order.

    Raises:
        UserError: names the entry that is wrong.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [validated(Variation, entry, f"{path.name}, variation {n}") for n, entry in enumerate(entries, 1)]


def command_lines(found: Sequence[Variation], attacks: str, ground: Ground, runs: Path) -> list[str]:
    """One command per configuration, the undefended twin first; what is the default by another name comes once."""
    common = ["poisonbench", "run", "--attack", attacks, "--tier", ground.tier, "--seeds", ground.seeds]
    attack = split_names([attacks])[0]
    distinct = {
        json.dumps(fields_asked(ground.cell(attack, changes=one.changes)), sort_keys=True): one
        for one in reversed(found)
    }
    asked = [(UNDEFENDED, ground.settings)]
    asked += [(DEFENSE, {**ground.settings, **one.changes}) for one in reversed(distinct.values())]
    return [
        shlex.join([*common, "--out", str(runs), "--defense", defense, *flags(settings)])
        for defense, settings in asked
    ]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line."""
    return [word for text in texts(settings) for word in ("--set", text)]


def texts(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``--set`` takes them."""
    return [f"{field}={v if isinstance(v, str) else json.dumps(v)}" for field, v in settings.items()]


def section(
    found: Sequence[Variation], records: Sequence[Record], attacks: Sequence[str], ground: Ground
) -> str:
    """A table per attack: undefended, then every variation, run or not."""
    command = shlex.join(["python", "-m", "tools.ablation", "--seeds", ground.seeds, *flags(ground.settings)])
    parts = [
        f"Made by `{command}` from the records of the commands that `--print` lists, tier `{ground.tier}`."
    ]
    for attack in attacks:
        rows = [["undefended", "the attack itself", *_numbers(ground.cell(attack, UNDEFENDED), records)]]
        default = fields_asked(ground.cell(attack))
        for one in found:
            cell = ground.cell(attack, changes=one.changes)
            same = ", the default" if one.changes and fields_asked(cell) == default else ""
            changes = " ".join(text.removeprefix("defense.") for text in texts(one.changes))
            name = f"{one.label} (`{changes}`{same})" if changes else one.label
            rows.append([name, one.tests, *_numbers(cell, records)])
        parts += [f"`{attack}`:", markdown(["variation", "what it tests", *NUMBERS], rows)]
    return "\n\n".join(parts)


def between_marks(page: str, text: str, path: Path) -> str:
    """``page`` with ``text`` between the marks; a page without marks gets a section at its end.

    Raises:
        UserError: for one mark without the other.
    """
    if BEGIN not in page and END not in page:
        page = f"{page.rstrip()}\n\n{HEADING}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path}: put '{END}' behind '{BEGIN}', or remove both")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _numbers(cell: Cell, records: Sequence[Record]) -> list[str]:
    """The row of the latest configuration that agrees with ``cell`` in every field that both know."""
    meant = (cell.attack.full_name, cell.defense.full_name, cell.tier.name)
    wanted = fields_asked(cell)
    named = [r for r in records if (r.attack.full_name, r.defense.full_name, r.tier) == meant]
    fitting = groups([r for r in named if not deviations(fields_of(r), wanted)], records)
    if not fitting:
        return ["not run", *[NOTHING] * (len(NUMBERS) - 1)]
    newest = latest(fitting)
    seeds, *rest = numbers(newest)
    unknown = sorted(wanted.keys() - fields_of(newest.records[0]))
    return [f"{seeds} (by code without {', '.join(unknown)})" if unknown else seeds, *rest]


if __name__ == "__main__":
    main()
