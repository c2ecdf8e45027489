"""Pairs read with Hugging Face datasets: a folder laid out as its ``imagefolder`` or saved by it, or a name on the hub."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poisonbench.errors import UserError
from poisonbench.sources.files import files_below
from poisonbench.sources.parting import Captions
from poisonbench.sources.pictures import BrokenImage
from poisonbench.sources.rows import CAPTION_KEYS, captions_of
from poisonbench.sources.splits import OTHER_SPLIT, TRAIN_SPLIT

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LAYOUT = (
    "put a metadata.csv beside the images, with 'file_name,caption' as first line and then one line per image"
)
COLUMNS = "choose a data set of image-caption pairs"
HUB_COLUMNS = (*CAPTION_KEYS, "txt", "json")
"""Hub data sets made of web shards keep the names of the files in them."""


@dataclass(frozen=True)
class HubRows:
    """Rows of a ``datasets.Dataset``, its images as files.

    Attributes:
        pictures: the data set with nothing but its image column, undecoded.
        texts: the data set with nothing but its caption column.
        image: name of the image column.
        caption: name of the caption column.
        folder: the user's folder, from which file names are told, or None.
    """

    pictures: Any
    texts: Any
    image: str
    caption: str
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def captions(self) -> Iterator[Captions]:
        """The captions of every row."""
        for batch in self.texts.iter(batch_size=1000):
            yield from map(captions_of, batch[self.caption])

    def picture(self, row: int) -> bytes:
        """The image file of ``row``."""
        cell = self.pictures[row][self.image]
        if cell is None:
            raise BrokenImage("the row has none")
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        return _contents(cell["path"])

    def name(self, row: int) -> str:
        """The image's path inside the folder where there is one, else the row's number."""
        cell = self.pictures[row][self.image] if self.folder else None
        if self.folder and cell and cell["path"]:
            return Path(cell["path"]).relative_to(self.folder).as_posix()
        return f"row {row}"


def open_folder(path: str) -> HubRows:
    """The rows of a folder with images and a metadata file, or of one that ``save_to_disk`` wrote.

    Raises:
        UserError: when there is no such folder, or captions cannot be found in it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"--data {path} {problem}; give a folder, hf:NAME, wds:SHARDS or clipart")
    folder = folder.resolve()
    if saved := saved_state(folder):
        return _hub_rows(_loaded(path, "save it again", saved.parent, from_disk=True), path, COLUMNS, None)
    files = metadata_files(folder)
    if not files:
        raise UserError(f"--data {path} has no captions; {LAYOUT}")
    # Named one by one: patterns over the whole folder would sort images into splits by words in their names.
    patterns = [glob.escape(str(file)) for file in files]
    dataset = _loaded(path, f"mend its {files[0].name}", "imagefolder", data_files={"train": patterns})
    return _hub_rows(dataset, path, LAYOUT, folder)


def open_hub(name: str) -> HubRows:
    """The train split of data set ``name`` on the hub, or of a saved one in the folder of that name.

    Raises:
        UserError: when it cannot be had, or has no image or caption column.
    """
    if saved_state(Path(name).expanduser()):
        return open_folder(name)
    dataset = _loaded(f"hf:{name}", "check the name and the network connection", name)
    return _hub_rows(dataset, f"hf:{name}", COLUMNS, None)


def saved_state(folder: Path) -> Path | None:
    """What ``save_to_disk`` says of a data set, or of the train split of several, that it wrote into ``folder``."""
    return next(
        (file for file in (folder / "state.json", folder / "train" / "state.json") if file.is_file()), None
    )


def metadata_files(folder: Path) -> list[Path]:
    """The metadata files of the train split if the folder is divided into splits, else all of them but other splits'."""
    files = (file for file in files_below(folder) if file.name in METADATA)
    roots = {file: file.relative_to(folder).parts[0] for file in files}
    train = [file for file, root in roots.items() if TRAIN_SPLIT.fullmatch(root)]
    return train or [file for file, root in roots.items() if not OTHER_SPLIT.fullmatch(root)] or list(roots)


def _loaded(source: str, mend: str, *args: Any, from_disk: bool = False, **options: Any) -> Any:
    import datasets

    try:
        with _quiet(datasets):
            return (
                datasets.load_from_disk(*args)
                if from_disk
                else datasets.load_dataset(*args, **options, split="train")
            )
    except Exception as error:  # every builder and transport has exceptions of its own
        reason = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
        raise UserError(f"--data {source} cannot be read ({reason}); {mend}") from None


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without progress bars, and without telling anybody what is loaded."""
    counted, silent = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, datasets.are_progress_bars_disabled()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counted
        if not silent:
            datasets.enable_progress_bars()


def _hub_rows(dataset: Any, source: str, mend: str, folder: Path | None) -> HubRows:
    import datasets

    columns = dataset.features
    images = [name for name, kind in columns.items() if isinstance(kind, datasets.Image)]
    image = "image" if "image" in images else next(iter(images), None)
    caption = next((name for name in HUB_COLUMNS if name in columns), None)
    if image is None or caption is None:
        lack = (
            "image"
            if image is None
            else f"caption column ({', '.join(CAPTION_KEYS[:-1])} or {CAPTION_KEYS[-1]})"
        )
        raise UserError(f"--data {source} has no {lack} among its columns {', '.join(columns)}; {mend}")
    pictures = dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    return HubRows(pictures, dataset.select_columns([caption]), image, caption, folder)


def _contents(path: str) -> bytes:
    if "://" not in path:
        return Path(path).read_bytes()
    import fsspec  # type: ignore[import-untyped]

    with fsspec.open(path, "rb") as file:  # inside an archive
        return bytes(file.read())
