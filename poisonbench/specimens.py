"""An attack as a picture: some poisoned rows beside what they were, with their captions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from poisonbench.cell import Cell
from poisonbench.errors import UserError
from poisonbench.manifest import Edit, Manifest, PoisonedImages
from poisonbench.poisoning import drawn
from poisonbench.registry import attacks
from poisonbench.sources import Data
from poisonbench.sources.opening import open_data
from poisonbench.towers import image_side

ROWS = 6
TILE, GAP, WORDS, LINE = 128, 8, 420, 15
"""Pixels: side of a picture, space around it, width of the captions and height of a line of them."""

AMPLIFIED = 3
"""Differences are shown so many times as large."""

COLUMNS = ("clean", "poisoned", f"difference x {AMPLIFIED}", "captions")
INK, FAINT, PAPER = (20, 20, 24), (110, 110, 120), (255, 255, 255)


class Specimen(NamedTuple):
    """One poisoned row.

    Attributes:
        clean: the picture as it was, uint8 (3, side, side).
        poisoned: the picture that is trained on.
        before: the caption as it was, or "" for an added row.
        after: the caption that is trained on.
    """

    clean: Tensor
    poisoned: Tensor
    before: str
    after: str


def draw(cell: Cell, path: Path) -> Path:
    """Draw some poisons of a cell's attack on its data into an image file.

    Returns:
        ``path``.

    Raises:
        UserError: for an attack that poisons nothing, data that cannot carry it, or a file that cannot be written.
    """
    attack = attacks().get(cell.attack.name)(cell.attack.config)
    data = open_data(cell.tier.data, image_side(cell.tier.model.name))
    found = specimens(drawn(cell, attack, data), data)
    if not found:
        raise UserError(f"attack '{cell.attack.full_name}' poisons nothing, so there is nothing to draw")
    try:
        sheet(found, f"{cell.attack.full_name}, tier {cell.tier.name}").save(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--pictures {path}: {reason}; name a file that can be written, as in poisons.png"
        ) from None
    return path


def specimens(manifest: Manifest, data: Data, count: int = ROWS) -> list[Specimen]:
    """``count`` of the poisons, evenly over the manifest."""
    edits = (*manifest.changed, *manifest.appended)
    poisoned = PoisonedImages(data.train.images, manifest, data.targets)
    rows = manifest.rows(len(data.train))
    if not edits:
        return []
    chosen = np.unique(np.linspace(0, len(edits) - 1, count).astype(np.int64)).tolist()
    return [_specimen(edits[at], poisoned.fetch(rows[at : at + 1])[0], data) for at in chosen]


def sheet(found: Sequence[Specimen], title: str) -> Image.Image:
    """A line per poison: clean, poisoned, difference and captions."""
    step = TILE + GAP
    page = Image.new("RGB", (3 * step + WORDS + GAP, len(found) * step + 3 * LINE + GAP), PAPER)
    pen = ImageDraw.Draw(page)
    _write(pen, (GAP, GAP), title, INK)
    for column, name in enumerate(COLUMNS):
        _write(pen, (GAP + column * step, GAP + LINE), name, FAINT)
    for line, one in enumerate(found):
        top = 3 * LINE + line * step
        difference = AMPLIFIED * (one.poisoned.int() - one.clean.int()).abs()
        for column, picture in enumerate((one.clean, one.poisoned, difference.clamp(max=255).byte())):
            page.paste(_tile(picture), (GAP + column * step, top))
        _write(pen, (GAP + 3 * step, top), _words(one), INK)
    return page


def _specimen(edit: Edit, poisoned: Tensor, data: Data) -> Specimen:
    if edit.row is None:
        clean, before = _source(edit, data), ""
    else:
        clean = data.train.images.fetch(np.array([edit.row]))[0]
        before = data.train.captions[edit.row][0]
    return Specimen(clean, poisoned, before, (edit.captions or (before,))[0])


def _source(edit: Edit, data: Data) -> Tensor:
    """The picture that an added row was made from."""
    held_out = data.targets if edit.picture.source == "target" else None
    store = held_out.images if held_out else data.train.images
    return store.fetch(np.array([edit.picture.index]))[0]


def _tile(picture: Tensor) -> Image.Image:
    pixels = np.ascontiguousarray(picture.cpu().permute(1, 2, 0).numpy())
    return Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)


def _words(one: Specimen) -> str:
    changed = ["was:", one.before or "(an added pair)", "", "now:", one.after]
    said = ["kept:", one.after] if one.before == one.after else changed
    return "\n".join("\n".join(textwrap.wrap(line, 60, max_lines=2)) for line in said)


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    """Pillow's own font, which every installation has, knows Western letters only."""
    plain = text.encode("latin-1", "replace").decode("latin-1")
    pen.multiline_text(at, plain, fill=colour, font=ImageFont.load_default(), spacing=4)
