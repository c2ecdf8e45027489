import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"  # read when datasets is imported
os.environ["HF_DATASETS_OFFLINE"] = "1"

Row = tuple[str, object]
MakeFolder = Callable[[Iterable[Row]], Path]


def drawing(number: int, size: tuple[int, int] = (12, 9)) -> Image.Image:
    """A picture that no other number has."""
    image = Image.new("RGB", size, (number * 37 % 256, number * 11 % 256, number // 256))
    image.paste((255 - number % 256, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    return image


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    drawing(number).save(buffer, "png")
    return buffer.getvalue()


def write_csv(folder: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = ("file_name", "caption")) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data sets are cached where the test ends, not in the home of whoever runs it."""
    import datasets

    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty sound pairs, thing 0 to thing 59."""
    path = tmp_path / "pairs"
    path.mkdir()
    for number in range(60):
        (path / f"{number:02}.png").write_bytes(png(number))
    write_csv(path, [(f"{number:02}.png", f"thing {number}") for number in range(60)])
    return path
