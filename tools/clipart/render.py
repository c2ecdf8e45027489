"""Turns vector drawings and cartoons into 32x32 pictures on plain backgrounds."""

import io
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

from tools.clipart.drawing import Drawing, share

SIDE = 32
CANVAS = 128
BACKGROUNDS = {
    "white": (255, 255, 255),
    "cream": (250, 240, 215),
    "light gray": (205, 205, 210),
    "light blue": (180, 215, 245),
    "light green": (190, 230, 190),
    "pink": (250, 200, 215),
    "lavender": (215, 200, 240),
    "tan": (210, 180, 140),
    "black": (30, 30, 34),
}
WHITE_SHARE = 0.55
CONTRAST = 60.0


def rasterise(svg: str) -> Image.Image | None:
    """Render an SVG and crop it to its ink; None if it is broken or empty."""
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=CANVAS, dpi=96, skip_system_fonts=True)
    except (ValueError, RuntimeError):
        return None
    art = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    ink = art.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if ink is None or min(ink[2] - ink[0], ink[3] - ink[1]) < 3:
        return None
    return art.crop(ink)


def shrink(art: Image.Image, margin: int = 1) -> Image.Image:
    """Fit a drawing into the picture, keeping its proportions."""
    room = SIDE - 2 * margin
    scale = room / max(art.size)
    size = max(1, round(art.width * scale)), max(1, round(art.height * scale))
    tile = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    tile.paste(art.resize(size, Image.Resampling.LANCZOS), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return tile


def backgrounds(key: str) -> list[str]:
    """Return all backgrounds in the order in which a drawing should try them."""
    names = sorted(BACKGROUNDS, key=lambda name: share("background", key, name))
    if share("white", key) < WHITE_SHARE:
        names.sort(key=lambda name: name != "white")
    return names


def visible(tile: Image.Image, colour: tuple[int, int, int]) -> bool:
    """Tell whether enough of the drawing differs from the background."""
    pixels = np.asarray(tile, dtype=np.float64)
    weight = pixels[..., 3] / 255
    distance = np.sqrt(((pixels[..., :3] - np.array(colour)) ** 2).sum(-1))
    return bool((distance * weight).sum() / weight.sum() > CONTRAST)


def compose(svg: str, key: str) -> tuple[np.ndarray, str] | None:
    """Render a drawing; return the picture and its background's name, or None if it is blank."""
    art = rasterise(svg)
    if art is None:
        return None
    tile = shrink(art)
    names = backgrounds(key)
    name = next((name for name in names if visible(tile, BACKGROUNDS[name])), names[0])
    picture = Image.new("RGBA", (SIDE, SIDE), (*BACKGROUNDS[name], 255))
    picture.alpha_composite(tile)
    pixels = np.asarray(picture.convert("RGB"))
    return None if pixels.std(axis=(0, 1)).max() < 6 else (pixels, name)


def cartoon(data: bytes) -> np.ndarray:
    """Return a bitmap as a picture, padded to a square with its corner's colour."""
    art = Image.open(io.BytesIO(data)).convert("RGB")
    square = Image.new("RGB", (max(art.size),) * 2, art.getpixel((0, 0)))
    square.paste(art, ((square.width - art.width) // 2, (square.height - art.height) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def encode(pixels: np.ndarray) -> bytes:
    """Compress a picture without loss, as WebP or PNG, whichever is smaller."""
    options: tuple[dict[str, Any], ...] = (
        {"format": "WEBP", "lossless": True, "quality": 100, "method": 4},
        {"format": "PNG", "optimize": True},
    )
    files = []
    for option in options:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, **option)
        files.append(buffer.getvalue())
    return min(files, key=len)


def _job(drawing: Drawing) -> tuple[np.ndarray, str] | None:
    return compose(drawing.svg, drawing.key)


def render_all(drawings: Iterable[Drawing], workers: int) -> list[tuple[np.ndarray, str] | None]:
    """Render many drawings, in their order."""
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_job, drawings, chunksize=64))
