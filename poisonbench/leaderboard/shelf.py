"""The published folder: ``records/*.json`` and the page made from all of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from poisonbench.errors import UserError
from poisonbench.leaderboard.render import render
from poisonbench.leaderboard.writing import put
from poisonbench.records import SCHEMA_VERSION, Record, Stored
from poisonbench.settings import validated
from poisonbench.validity import derived

_MEND = "run its cell again with --force"


def publish(store_records: Sequence[tuple[Record, Path]], out: Path) -> Path:
    """Copy records into ``out/records`` and render ``out/index.html`` from all that lie there.

    Everything is read and checked before the first byte is written.

    Args:
        store_records: records, each with its JSON file.
        out: the folder; what was published before stays.

    Returns:
        The page's path.

    Raises:
        UserError: for a file that cannot be read or is no record, or a folder that cannot be written.
    """
    shelf = out / "records"
    copies = {file_name(record): _checked(path) for record, path in store_records}
    published(shelf)
    for name, text in copies.items():
        put(shelf / name, text)
    found = published(shelf)
    links = {record.provenance.config_hash: f"records/{quote(name)}" for name, record in found.items()}
    return render(list(found.values()), out, links)


def published(shelf: Path) -> dict[str, Record]:
    """The records in a folder by file name, each judged by the undefended twin that lies beside it.

    Raises:
        UserError: names the file that is no record.
    """
    found = {path.name: load_record(path) for path in sorted(shelf.glob("*.json"))}
    return dict(zip(found, derived(list(found.values())), strict=True))


def load_record(path: Path) -> Stored:
    """One record from its JSON file.

    Raises:
        UserError: when it cannot be read, is no JSON, comes from a newer release or has a wrong field.
    """
    return _parsed(_read(path), path)


def file_name(record: Stored) -> str:
    """A name that is safe on every file system and cannot leave its folder."""
    cell = f"{record.attack.name}--{record.defense.name}--{record.tier}--s{record.seed}"
    wanted = f"{cell}--{record.provenance.config_hash}"
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", wanted).lstrip(".")[:180]
    if safe != wanted:
        safe += "--" + hashlib.sha256(wanted.encode()).hexdigest()[:8]
    return f"{safe}.json"


def _checked(path: Path) -> str:
    text = _read(path)
    _parsed(text, path)
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read record {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"record {path} is not UTF-8 text; {_MEND}") from None


def _parsed(text: str, path: Path) -> Stored:
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"record {path} is not valid JSON: {error}; {_MEND}") from None
    if not isinstance(values, dict):
        raise UserError(f"record {path} is not a JSON object; {_MEND}")
    _refuse_newer(values, path)
    _refuse_half_characters(values, path)
    values.pop("valid", None)  # printed records carry it; here it follows from the records side by side
    return validated(Stored, values, f"record {path}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _refuse_half_characters(values: dict[str, Any], path: Path) -> None:
    """JSON can spell half of a surrogate pair, which no file and no page can hold."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f"record {path} has text that is not Unicode; {_MEND}") from None


def _refuse_newer(values: dict[str, Any], path: Path) -> None:
    version = values.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        known = f"this poisonbench knows versions up to {SCHEMA_VERSION}"
        raise UserError(f"record {path} has schema version {version}, {known}; upgrade poisonbench")
