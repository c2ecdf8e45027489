import os
from pathlib import Path

import pytest
from user_data import write_csv, write_images

os.environ["HF_HUB_OFFLINE"] = "1"  # read when datasets is imported
os.environ["HF_DATASETS_OFFLINE"] = "1"


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
    names = [f"{number:02}.png" for number in range(60)]
    write_images(path, names)
    write_csv(path, [(name, f"thing {number}") for number, name in enumerate(names)])
    return path
