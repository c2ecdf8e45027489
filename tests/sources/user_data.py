"""Small data sets as a user might bring them."""

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from poisonbench.pairs import Pairs


def drawing(number: int) -> Image.Image:
    """A picture that no other number below 256 has."""
    image = Image.new("RGB", (12, 9), (number, number * 37 % 256, 90))
    image.paste((255 - number, 0, 0), (0, 0, 6, 4))
    return image


def encoded(number: int, kind: str = "png") -> bytes:
    """That picture as a file."""
    buffer = io.BytesIO()
    drawing(number).save(buffer, kind)
    return buffer.getvalue()


def write_images(folder: Path, names: Iterable[str]) -> None:
    """One picture per name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(number))


def write_csv(
    folder: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = ("file_name", "caption")
) -> None:
    """The folder's metadata.csv."""
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_jsonl(folder: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """The folder's metadata.jsonl."""
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """A shard."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def pictures(pairs: Pairs) -> np.ndarray:
    """All images of ``pairs``."""
    return pairs.images.fetch(np.arange(len(pairs))).numpy()


def said(pairs: Pairs) -> list[str]:
    """The first caption of each pair."""
    return [options[0] for options in pairs.captions]
