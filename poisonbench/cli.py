"""The command line; ``--help`` must answer at once, so everything heavy is imported inside the commands."""

# ruff: noqa: D301 (click reads \b as "do not wrap the next paragraph")

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from poisonbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from poisonbench.records import Record
    from poisonbench.resolve import Request

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

PIPE_WIDTH = 100
"""Columns where there is no terminal to ask."""

FOLDER = click.Path(path_type=Path)


class OneLine(click.Group):
    """A group whose errors are one line on standard error with exit code 2, never a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; its return value is the exit status."""
        kwargs["standalone_mode"] = False
        logging.getLogger("poisonbench.registry").setLevel(
            logging.ERROR
        )  # commands name broken plugins themselves
        try:
            status = super().main(*args, **kwargs)
        except (UserError, click.ClickException) as error:
            message = error.format_message() if isinstance(error, click.ClickException) else str(error)
            click.echo(f"poisonbench: error: {' '.join(message.split())}", err=True)
            status = 2
        except click.Abort:
            click.echo("poisonbench: interrupted; finished cells are kept", err=True)
            status = INTERRUPTED
        sys.exit(status or 0)


@click.group(
    cls=OneLine,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Start with: poisonbench run --attack backdoor_badnet --defense otcclip",
    invoke_without_command=True,
)
@click.option("--version", is_flag=True, help="Show the version and exit.")
@click.pass_context
def cli(context: click.Context, version: bool) -> None:
    """Poison CLIP's training pairs, defend it, and measure what is left of attack and model."""
    if version:
        import poisonbench

        click.echo(f"poisonbench {poisonbench.__version__}")
    elif context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    required=True,
    metavar="NAMES",
    help="One, several, 'all' or 'all:variants'; NAME:VARIANT for a preset.",
)
@click.option("--defense", "defenses", multiple=True, default=["none"], metavar="NAMES", help="Likewise.")
@click.option("--tier", default="clipart", metavar="NAME", help="A tier, or a YAML file that declares one.")
@click.option("--seeds", "--seed", default="0", metavar="SEEDS", help="0 or 0,1,2 or 0-2.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Override a field of the cell.")
@click.option("--data", metavar="SOURCE", help="Your pairs: a folder, hf:NAME or wds:SHARDS.")
@click.option("--eval", "evaluation", metavar="TASKS", help="Your tasks: folder:PATH or clip-benchmark:NAME.")
@click.option("--out", default="runs", type=FOLDER, help="Where records go.")
@click.option("--workers", default=1, type=click.IntRange(1), help="Cells at a time.")
@click.option("--device", default="auto", metavar="DEVICE", help="auto, cpu or cuda.")
@click.option("--force", is_flag=True, help="Run cells again that have a record.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON, several as an array.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def run(
    attacks: Sequence[str],
    defenses: Sequence[str],
    tier: str,
    seeds: str,
    settings: Sequence[str],
    data: str | None,
    evaluation: str | None,
    out: Path,
    workers: int,
    device: str,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run attacks against defences and show what came out.

    A cell that was run before is not run again; its record is shown.

    \b
    Examples:
      poisonbench run --attack backdoor_badnet --defense otcclip
      poisonbench run --attack all --defense none,roclip --seeds 0-2 --workers 4
      poisonbench run --attack targeted --set recipe.epochs=20 --set attack.captions=5
      poisonbench run --attack backdoor_badnet --data my/folder --eval folder:my/classes
    """
    from poisonbench.arguments import parse_seeds, parse_settings, split_names
    from poisonbench.console import open_board
    from poisonbench.grid import run_grid
    from poisonbench.resolve import Request, resolve
    from poisonbench.store import Store

    request = Request(
        attacks=split_names(attacks),
        defenses=split_names(defenses),
        tier=tier,
        seeds=parse_seeds(seeds),
        settings=parse_settings(settings),
        data=data,
        evaluation=evaluation,
        device=device,
    )
    cells, store = resolve(request), Store(out)
    _name_left_out(request)
    with redirect_stdout(sys.stderr), open_board(len(cells), quiet) as board:
        status = run_grid(cells, store, board, workers, force)
    found = [(record, store.path(cell)) for cell in cells if (record := store.load(cell))]
    if as_json:
        _print_json([record for record, _ in found], alone=len(cells) == 1)
    else:
        _print_tables(found)
    return status


@cli.command()
@click.option("--out", default="runs", type=FOLDER, help="Where records are.")
@click.option("--json", "as_json", is_flag=True, help="Print done, running, failed and left as JSON.")
def status(out: Path, as_json: bool) -> None:
    """Tell which cells are done, running, failed or left, and the time to go.

    \b
    Example:
      poisonbench status --out runs
    """
    from poisonbench.status import status_lines, status_of
    from poisonbench.store import Store

    if not out.is_dir():
        raise UserError(f"--out {out}: there is no such folder; run some cells first, or name another")
    found = status_of(Store(out))
    click.echo(found.model_dump_json(indent=1) if as_json else "\n".join(status_lines(found)))


@cli.group()
def show() -> None:
    """Show what a tier, an attack or a defence is.

    \b
    Examples:
      poisonbench show tier clipart
      poisonbench show defense otcclip
    """


@show.command("tier")
@click.argument("name")
def show_tier(name: str) -> None:
    """Print tier NAME as it is declared, in YAML."""
    from poisonbench.describe import tier_text

    click.echo(tier_text(name))


@show.command("attack")
@click.argument("name")
@click.option("--pictures", type=FOLDER, metavar="FILE.png", help="Draw some of its poisons into this file.")
@click.option("--tier", default="clipart", metavar="NAME", help="The tier whose data is poisoned for them.")
def show_attack(name: str, pictures: Path | None, tier: str) -> None:
    """Show attack NAME or NAME:VARIANT: what it does, its card and its fields.

    \b
    Example:
      poisonbench show attack backdoor_blended:stripes --pictures stripes.png
    """
    from poisonbench import registry
    from poisonbench.describe import show_plugin

    if pictures is None:
        show_plugin(*registry.attacks().find(name), _stdout())
        return
    from poisonbench.resolve import Request, resolve
    from poisonbench.specimens import draw

    [cell] = resolve(Request(attacks=(name,), tier=tier, device="cpu"))
    click.echo(f"wrote {draw(cell, pictures)}")


@show.command("defense")
@click.argument("name")
def show_defense(name: str) -> None:
    """Show defence NAME or NAME:VARIANT: what it does, its card and its fields."""
    from poisonbench import registry
    from poisonbench.describe import show_plugin

    show_plugin(*registry.defenses().find(name), _stdout())


@cli.command("list")
def list_all() -> None:
    """List attacks, defences and tiers, and what cannot be used."""
    from poisonbench.describe import show_all

    show_all(_stdout())


@cli.group()
def new() -> None:
    """Start a plugin of your own, as a project that installs and runs at once.

    \b
    Examples:
      poisonbench new defense my_idea
      pip install -e my-idea && poisonbench check my_idea
    """


@new.command("attack")
@click.argument("name")
@click.option("--into", default=".", type=FOLDER, help="The parent folder.")
def new_attack(name: str, into: Path) -> None:
    """Write a plugin project for an attack called NAME."""
    _create("attack", name, into)


@new.command("defense")
@click.argument("name")
@click.option("--into", default=".", type=FOLDER, help="The parent folder.")
def new_defense(name: str, into: Path) -> None:
    """Write a plugin project for a defence called NAME."""
    _create("defense", name, into)


@cli.command()
@click.argument("name")
def check(name: str) -> int:
    """Run the contract tests on plugin NAME.

    \b
    Example:
      poisonbench check my_idea
    """
    from poisonbench.conformance import check_plugin

    results = check_plugin(name)
    for result in results:
        click.echo(f"{'kept  ' if result.passed else 'BROKEN'}  {result.check}: {result.message}")
    broken = sum(not result.passed for result in results)
    click.echo(f"{name}: {len(results) - broken} of {len(results)} promises kept")
    return int(broken > 0)


@cli.command()
@click.option("--runs", default="runs", type=FOLDER, help="Where records are.")
@click.option("--out", default="leaderboards", type=FOLDER, help="What is published.")
def leaderboard(runs: Path, out: Path) -> None:
    """Publish records and render the leaderboard from all that are published; without runs, render it anew.

    \b
    Example:
      poisonbench leaderboard --runs runs --out leaderboards
    """
    from poisonbench.leaderboard import publish
    from poisonbench.store import Store

    anew = runs == Path("runs") and (out / "records").is_dir()
    if not runs.is_dir() and not anew:
        raise UserError(f"--runs {runs}: there is no such folder; run some cells first, or name another")
    entries = Store(runs).entries() if runs.is_dir() else []
    page = publish([(entry.record, entry.path) for entry in entries], out)
    click.echo(f"published {len(entries)} from {runs}; open {page}")


def main() -> None:
    """The ``poisonbench`` command."""
    cli(prog_name="poisonbench")


def _create(kind: Literal["attack", "defense"], name: str, into: Path) -> None:
    from poisonbench import scaffold

    project = scaffold.create(kind, name, into)
    click.echo(f"wrote {project}\nnext: pip install -e {project} && poisonbench check {name}")


def _stdout() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def _name_left_out(request: Request) -> None:
    from poisonbench import registry

    for names, plugins in ((request.attacks, registry.attacks()), (request.defenses, registry.defenses())):
        for problem in plugins.problems() if {"all", "all:variants"} & set(names) else []:
            what = f"'{problem.name}' of {problem.distribution}"
            click.echo(f"poisonbench: warning: left out {what}: {problem.reason}", err=True)


def _print_json(records: Sequence[Record], alone: bool) -> None:
    import json

    values = [record.model_dump(mode="json") for record in records]
    click.echo(json.dumps(values[0] if alone else values, ensure_ascii=False))


def _print_tables(found: Sequence[tuple[Record, Path]]) -> None:
    from poisonbench.tables import show_records

    show_records(found, _stdout())


if __name__ == "__main__":
    main()
