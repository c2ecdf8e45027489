"""Writing into the published folder."""

from __future__ import annotations

from pathlib import Path

from poisonbench.durable import write_atomically
from poisonbench.errors import UserError


def put(path: Path, text: str) -> Path:
    """Write ``text`` to ``path``, whole or not at all, and make the folder if there is none.

    Raises:
        UserError: when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path} ({reason}); free space or choose another folder") from None
    return path
