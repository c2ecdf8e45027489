"""The files below a folder, as a person sees them: hidden ones are left out, links are followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Every file below ``folder`` whose path holds no hidden part, sorted; what cannot be entered is left out.

    Args:
        folder: where to look.
        above: the real places of the folders on the way to it, so that a link back to one of them is not followed.
    """
    here = folder.resolve()
    if here in above:
        return
    try:
        shown = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = {entry for entry in shown if entry.is_dir()}
        files = {entry for entry in shown if entry.is_file()}
    except PermissionError:
        return
    for entry in shown:
        if entry in folders:
            yield from files_below(entry, (*above, here))
        elif entry in files:
            yield entry
