"""The page: one self-contained HTML file that needs no network, and no script to be read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from poisonbench.leaderboard import view
from poisonbench.leaderboard.board import KEEP, Board, boards
from poisonbench.leaderboard.keys import flatten
from poisonbench.leaderboard.writing import put
from poisonbench.records import Record

_TRACK_TITLES = {
    "pre-training": "Defences in training",
    "filter": "Filters before training",
    "repair": "Repairs after training",
    "screening": "Screening at inference",
}


def render(records: Sequence[Record], out: Path, links: Mapping[str, str] | None = None) -> Path:
    """Write ``out/index.html``, whole or not at all; the same records give the same bytes in any order.

    Args:
        records: everything to show.
        out: the folder.
        links: config hash to the address of the record's JSON, relative to ``out``.

    Returns:
        The page's path.

    Raises:
        UserError: when the folder cannot be written.
    """
    return put(out / "index.html", page(boards(records), links or {}))


def page(every: Sequence[Board], links: Mapping[str, str]) -> str:
    """The page's HTML."""
    style, script = _static("board.css"), _static("sort.js")
    finished = [record.provenance.finished for board in every for record in board.records]
    template = _environment().get_template("page.html")
    return template.render(
        boards=every,
        links=links,
        latest=max(finished, default=""),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("poisonbench.leaderboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(view=view, tracks=_TRACK_TITLES, keep=KEEP, flatten=flatten)
    return environment


def _static(name: str) -> str:
    return files("poisonbench.leaderboard").joinpath("static", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What the content policy lets run: this text and nothing else."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
