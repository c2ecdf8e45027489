"""Turns files into square pictures: checked once, then kept in memory or decoded whenever they are needed."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from poisonbench.errors import UserError
from poisonbench.pairs import ArrayImages, ImageStore, Rows

IN_MEMORY = 2 * 2**30
"""Bytes of pixels up to which a collection is decoded once and kept."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What Pillow may take a file for; some of its other formats start programs or are slow to refuse."""

Pixels = npt.NDArray[np.uint8]


class BrokenImage(Exception):
    """A picture that cannot be decoded; the message says why."""


def squared(picture: Image.Image, side: int) -> Pixels:
    """The whole picture squeezed into a square, uint8 (3, side, side); what is transparent becomes white.

    Raises:
        BrokenImage: for pixels without a known range.
    """
    picture = _in_eight_bits(ImageOps.exif_transpose(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def decoded(data: bytes, side: int) -> Pixels:
    """An image file's bytes as a square picture, uint8 (3, side, side).

    Raises:
        BrokenImage: when Pillow cannot read it to the end.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            picture.draft("RGB", (2 * side, 2 * side))  # large JPEGs shrink while they are decoded
            return squared(picture, side)
    except MemoryError:
        raise
    except Exception as error:  # decoders meet damaged files with nearly any exception
        raise BrokenImage(_reason(error)) from None


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits in 8, which Pillow would cut off instead; all else as it is."""
    if picture.mode == "F":
        raise BrokenImage("its pixels are floating-point numbers, whose range is not known")
    if not picture.mode.startswith("I"):
        return picture
    grey = np.asarray(picture).astype(np.int64)
    if grey.min() < 0 or grey.max() > 0xFFFF:
        raise BrokenImage("its pixels are integers of more than 16 bits")
    wide = picture.mode != "I" or grey.max() > 0xFF  # mode I is 32 bits, whatever is in them
    return Image.fromarray((grey // 257 if wide else grey).astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return (str(error) or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class LazyImages:
    """Images decoded by a few threads whenever they are asked for.

    Attributes:
        picture: gives the square picture of a row, uint8 (3, side, side).
        count: the number of rows.
        side: pixels per image side.
    """

    picture: Callable[[int], Pixels]
    count: int
    side: int

    def __len__(self) -> int:
        return self.count

    def fetch(self, rows: Rows) -> Tensor:
        """The images of ``rows``, uint8 (len(rows), 3, side, side).

        Raises:
            UserError: when an image that was sound can no longer be read.
        """
        found = np.empty((len(rows), 3, self.side, self.side), dtype=np.uint8)
        try:
            with ThreadPoolExecutor(workers()) as pool:  # not kept: threads would not survive a fork
                for place, pixels in enumerate(pool.map(self.picture, np.asarray(rows).tolist())):
                    found[place] = pixels
        except (BrokenImage, OSError) as error:
            raise UserError(
                f"an image of the data can no longer be read ({error}); leave the data in place"
            ) from None
        return torch.from_numpy(found)


def workers() -> int:
    """Threads that decode."""
    return min(8, os.cpu_count() or 1)


@dataclass
class Gallery:
    """Files by number, looked at once: which are pictures, and what is in them; few enough are kept decoded.

    Attributes:
        read: gives the bytes of a file; may raise OSError or BrokenImage.
        count: how many files there are.
        side: pixels per image side.
        broken: the reason, per file that was looked at and is no picture.
        digests: a hash of the content, per sound file that was looked at.
    """

    read: Callable[[int], bytes]
    count: int
    side: int
    broken: dict[int, str] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (self.count, 3, self.side, self.side)
        self._pixels = (
            torch.empty(shape, dtype=torch.uint8) if fits_in_memory(self.count, self.side) else None
        )

    @property
    def images(self) -> ImageStore:
        """All files by number; only those found sound may be fetched."""
        if self._pixels is not None:
            return ArrayImages(self._pixels)
        return LazyImages(lambda number: decoded(self.read(number), self.side), self.count, self.side)

    def sound(self, numbers: Iterable[int]) -> Iterator[int]:
        """Those of ``numbers`` that are pictures, in order; none is looked at long before it is asked for."""
        waiting = iter(numbers)
        with ThreadPoolExecutor(workers()) as pool:
            while chunk := list(islice(waiting, 16 * workers())):
                for number, seen in zip(chunk, pool.map(self._look, chunk), strict=True):
                    if isinstance(seen, str):
                        self.broken[number] = seen
                    else:
                        self.digests[number] = seen
                        yield number

    def _look(self, number: int) -> bytes | str:
        try:
            data = self.read(number)
            pixels = decoded(data, self.side)
        except (BrokenImage, OSError) as error:
            return getattr(error, "strerror", None) or str(error)
        if self._pixels is not None:
            self._pixels[number] = torch.from_numpy(pixels)
        return hashlib.sha256(data).digest()


def fits_in_memory(count: int, side: int) -> bool:
    """Whether so many pictures are few enough to be kept decoded."""
    return count * 3 * side * side <= IN_MEMORY
