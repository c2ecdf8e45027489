"""Records read from their files, damaged ones named."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from poisonbench.errors import UserError, one_line
from poisonbench.records import Stored
from poisonbench.settings import validated

log = logging.getLogger(__name__)


def read_record(path: Path) -> Stored | None:
    """What the record file holds, or None if there is none.

    Raises:
        UserError: when it cannot be read; names the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"record {path} is damaged ({one_line(error)}); run its cell again with --force"
        ) from None
    return validated(Stored, values, f"record {path}")


def readable(paths: Iterable[Path]) -> Iterator[tuple[Stored, Path]]:
    """The records that can be read, each with its file; the others are left out with a warning."""
    for path in paths:
        try:
            stored = read_record(path)
        except UserError as error:
            log.warning("%s", error)
            continue
        if stored is not None:
            yield stored, path


def problem(path: Path) -> str | None:
    """Why a record cannot be read, or None if it can."""
    try:
        read_record(path)
    except UserError as error:
        return str(error)
    return None
