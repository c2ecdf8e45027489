"""Pairs in WebDataset shards: local tar files in which an image and its caption share a name."""

from __future__ import annotations

import json
import tarfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from poisonbench.errors import UserError
from poisonbench.progress import Progress
from poisonbench.sources.parting import Captions
from poisonbench.sources.pictures import BrokenImage
from poisonbench.sources.rows import captions_of

IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "text", "caption", "json")
"""Endings of caption files; where a pair has several, the first with a caption counts."""


class Place(NamedTuple):
    """Where a file lies in a shard."""

    offset: int
    size: int


NOWHERE = Place(-1, 0)


@dataclass
class Sample:
    """The files of one pair.

    Attributes:
        image: where the picture lies.
        captions: per ending the captions that were found.
    """

    image: Place = NOWHERE
    captions: dict[str, Captions] = field(default_factory=dict)


class ShardRows:
    """The pairs of several shards; captions are held, pictures are read from the tar files in place."""

    def __init__(self, shards: list[Path], progress: Progress) -> None:
        """Read the table of contents and the captions of every shard.

        Raises:
            UserError: for a shard that is no tar file.
        """
        self._shards = shards
        self._names: list[str] = []
        self._captions: list[Captions] = []
        self._places = array("q")  # shard, offset and size per row: millions of rows fit
        progress.phase("reading shards", len(shards), "shards")
        for number, shard in enumerate(shards):
            for name, sample in _samples(shard).items():
                self._names.append(name)
                self._captions.append(_first(sample.captions))
                self._places.extend((number, *sample.image))
            progress.advance(number + 1)

    def __len__(self) -> int:
        return len(self._names)

    def captions(self) -> Iterator[Captions]:
        """The captions of every row."""
        return iter(self._captions)

    def picture(self, row: int) -> bytes:
        """The image file of ``row``."""
        shard, offset, size = self._places[3 * row : 3 * row + 3]
        if offset < 0:
            raise BrokenImage("the shard has none of this name")
        with self._shards[shard].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def name(self, row: int) -> str:
        """The shard and the name in it."""
        return f"{self._shards[self._places[3 * row]].name}/{self._names[row]}"


def open_shards(pattern: str, progress: Progress) -> ShardRows:
    """The rows of the shards that ``pattern`` names, for example ``data/shards-{000..099}.tar``.

    Raises:
        UserError: when a shard is missing, remote or no tar file.
    """
    return ShardRows(shard_files(pattern), progress)


def shard_files(pattern: str) -> list[Path]:
    """The shards that ``pattern`` names.

    Raises:
        UserError: when one is missing or remote.
    """
    from webdataset.shardlists import expand_urls

    if "://" in pattern or pattern.startswith("pipe:"):
        raise UserError(f"--data wds:{pattern} is remote; download the shards and give their local path")
    paths = [Path(url).expanduser() for url in expand_urls(pattern)]
    shards = [shard for path in paths for shard in _matches(path)]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        tail = f"and {len(missing) - 1} more shards do not exist" if len(missing) > 1 else "does not exist"
        raise UserError(
            f"--data wds:{pattern}: {missing[0]} {tail}; check the path and the numbers in braces"
        )
    return shards


def _matches(path: Path) -> list[Path]:
    return sorted(path.parent.glob(path.name)) or [path] if "*" in path.name else [path]


def _samples(shard: Path) -> dict[str, Sample]:
    """The samples of a shard by name; a name that returns, as where shards were joined, gets a number."""
    keyed: dict[str, list[Sample]] = {}
    dotted: dict[str, list[Sample]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.name.startswith("."):
                    continue
                stem, _, ending = path.name.partition(".")
                if not _add(keyed, str(path.with_name(stem)), ending, member, tar):
                    _add(dotted, str(path.with_suffix("")), path.suffix[1:], member, tar)
            _check_end(shard, tar.offset)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"--data: shard {shard} is no intact, uncompressed tar file ({error})") from None
    found = {**{name: own for name, own in dotted.items() if _whole(own[0])}, **keyed}
    return {
        name if not number else f"{name} ({number + 1})": sample
        for name, samples in found.items()
        for number, sample in enumerate(samples)
    }


def _check_end(shard: Path, offset: int) -> None:
    """Raise ReadError unless nothing but zeros, and some of them, follows the last member: tarfile takes any end for the end."""
    with shard.open("rb") as file:
        file.seek(offset)
        if len(rest := file.read(tarfile.RECORDSIZE)) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it was cut off: its end is missing")
        while rest:
            if rest.count(0) != len(rest):
                raise tarfile.ReadError(f"it is damaged at byte {offset}, or another tar file follows there")
            rest = file.read(1 << 20)


def _whole(sample: Sample) -> bool:
    """Whether a name with dots in it is a pair's, and not that of a further file of a pair (``a.seg.png``)."""
    return sample.image != NOWHERE and bool(sample.captions)


def _add(
    found: dict[str, list[Sample]], name: str, ending: str, member: tarfile.TarInfo, tar: tarfile.TarFile
) -> bool:
    """Put an image or a caption to its sample; False if the file is neither."""
    ending = ending.lower()
    if ending not in (*IMAGES, *TEXTS):
        return False
    samples = found.setdefault(name, [Sample()])
    taken = samples[-1].image != NOWHERE if ending in IMAGES else ending in samples[-1].captions
    if taken:
        samples.append(Sample())
    if ending in IMAGES:
        samples[-1].image = Place(member.offset_data, member.size)
    elif file := tar.extractfile(member):
        samples[-1].captions[ending] = _parsed(file.read(), ending)
    return True


def _parsed(data: bytes, ending: str) -> Captions:
    text = data.decode("utf-8-sig", errors="replace")
    if ending != "json":
        return captions_of(text)
    try:
        return captions_of(json.loads(text))
    except ValueError:
        return ()


def _first(captions: dict[str, Captions]) -> Captions:
    return next((captions[ending] for ending in TEXTS if captions.get(ending)), ())
