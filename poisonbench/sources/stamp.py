"""What tells data from other data before any of it is read: the same folder may hold other pictures tomorrow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from poisonbench.sources.class_folders import picture_files
from poisonbench.sources.hub import metadata_files, saved_state
from poisonbench.sources.shards import shard_files
from poisonbench.tier import DataSpec

EMBEDDED = Path(__file__).parent / "clipart"


def stamp(spec: DataSpec) -> str:
    """A hash of where the data come from, 12 digits; for files on this machine of what is in them and not of where they lie.

    Looked at are the content of a folder's captions, shards with their size and time, and the names and sizes of pictures
    to judge by. Data that cannot be found are told by their name: whoever opens them says what is wrong. A picture that
    is replaced under its name and its captions is not noticed; the fingerprint in the record tells.
    """
    digest = hashlib.sha256()
    for name in (spec.source, *spec.evaluation):
        for part in _told(name):
            digest.update(part + b"\0")
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def _told(name: str) -> Iterator[bytes]:
    kind, _, rest = name.partition(":")
    try:
        if name == "clipart":
            yield from _sizes(
                sorted(f for f in EMBEDDED.rglob("*") if f.suffix in (".json", ".parquet")), EMBEDDED
            )
        elif kind == "wds":
            yield from (
                f"{s.name} {s.stat().st_size} {s.stat().st_mtime_ns}".encode() for s in shard_files(rest)
            )
        elif kind == "folder" and Path(rest).expanduser().is_dir():
            folder = Path(rest).expanduser()
            yield from _sizes(picture_files(folder), folder)
        elif (folder := Path(rest if kind == "hf" else name).expanduser()).is_dir():
            saved = saved_state(folder)  # it holds a fingerprint of the rows
            files = [saved] if saved else metadata_files(folder)
            yield from (file.read_bytes() for file in files)
            if not files:
                yield name.encode()
        else:
            yield name.encode()
    except OSError:
        yield name.encode()


def _sizes(files: Iterable[Path], folder: Path) -> Iterator[bytes]:
    return (f"{file.relative_to(folder).as_posix()} {file.stat().st_size}".encode() for file in files)
