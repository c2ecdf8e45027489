"""Writes the product as Parquet and JSON files whose bytes depend on nothing but their content."""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tools.clipart.corpus import Pair
from tools.clipart.render import encode
from tools.clipart.tasks import Item, Task


def write_table(path: Path, columns: dict[str, pa.Array]) -> None:
    """Write columns to a Parquet file with every option spelled out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [name for name in columns if name not in {"image", "label"}]
    texts = ["captions.list.element" if name == "captions" else name for name in texts]
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        compression_level=15,
        version="2.6",
        data_page_version="1.0",
        use_dictionary=texts,
        write_statistics=False,
        store_schema=False,
        row_group_size=4096,
    )


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON with a final newline."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


class Store:
    """Knows the layout of the product's folder."""

    def __init__(self, folder: Path, workers: int) -> None:
        """Remember where to write and with how many processes to compress."""
        self.folder, self.workers = folder, workers
        folder.mkdir(parents=True, exist_ok=True)

    def _images(self, rows: Sequence[Pair | Item]) -> pa.Array:
        with ProcessPoolExecutor(self.workers) as pool:
            files = list(pool.map(encode, [row.pixels for row in rows], chunksize=128))
        return pa.array(files, pa.binary())

    def pairs(self, pairs: Sequence[Pair]) -> None:
        """Write the pre-training pairs."""
        columns = {
            "image": self._images(pairs),
            "captions": pa.array([p.captions for p in pairs], pa.list_(pa.string())),
        }
        for name in ("concept", "hypernym", "source", "license"):
            columns[name] = pa.array([getattr(pair.drawing, name) for pair in pairs], pa.string())
        columns["split"] = pa.array([pair.split for pair in pairs], pa.string())
        write_table(self.folder / "pairs.parquet", columns)

    def task(self, task: Task) -> None:
        """Write the pictures of one task."""
        columns = {"image": self._images(task.items), "label": pa.array(task.labels, pa.int32())}
        columns |= _texts(task.items, ("concept", "source", "license"))
        write_table(self.folder / "tasks" / f"{task.name}.parquet", columns)

    def targets(self, items: Sequence[Item]) -> None:
        """Write the art for targeted attacks."""
        columns = {"image": self._images(items)} | _texts(
            items, ("concept", "hypernym", "source", "license", "twin")
        )
        write_table(self.folder / "targets.parquet", columns)

    def task_table(self, tasks: Sequence[Task]) -> None:
        """Write what the tasks are called, ask and say."""
        names = ("name", "kinds", "classes", "words", "templates", "note")
        write_json(
            self.folder / "tasks.json", [{name: getattr(task, name) for name in names} for task in tasks]
        )


def _texts(items: Sequence[Item], names: Sequence[str]) -> dict[str, pa.Array]:
    return {name: pa.array([getattr(item, name) for item in items], pa.string()) for name in names}
