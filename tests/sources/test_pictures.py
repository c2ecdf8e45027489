import io

import numpy as np
import pytest
from PIL import Image

from poisonbench.sources.pictures import BrokenImage, Gallery, decoded, squared


def as_file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_the_whole_picture_becomes_a_square() -> None:
    wide = Image.new("RGB", (40, 10), "red")
    wide.paste((0, 0, 255), (20, 0, 40, 10))
    pixels = squared(wide, 8)
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == np.uint8
    assert pixels[:, :, 0].tolist() == [[255] * 8, [0] * 8, [0] * 8]
    assert pixels[:, :, 7].tolist() == [[0] * 8, [0] * 8, [255] * 8]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (6, 6), (0, 0, 0, 0)).convert(mode)
    assert (decoded(as_file(clear, "png"), 4) == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "RGB"])
def test_other_modes_become_rgb(mode: str) -> None:
    grey = Image.new("RGB", (6, 6), (255, 255, 255)).convert(mode)
    assert (decoded(as_file(grey, "tiff"), 4) == 255).all()


@pytest.mark.parametrize(
    ("kind", "dtype", "top"),
    [("png", "uint16", 65535), ("tiff", "uint16", 65535), ("tiff", "int32", 65535), ("tiff", "int32", 255)],
)
def test_grey_of_more_than_eight_bits_keeps_its_shades(kind: str, dtype: str, top: int) -> None:
    ramp = np.linspace(0, top, 8).astype(dtype)[None].repeat(8, axis=0)
    pixels = decoded(as_file(Image.fromarray(ramp), kind), 8)
    assert np.abs(pixels[:, 0].astype(int) - np.linspace(0, 255, 8)).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.eye(4, dtype=np.float32), "floating-point"),
        (np.full((4, 4), 10**6, np.int32), "more than 16 bits"),
    ],
)
def test_pixels_without_a_known_range_are_refused(pixels: np.ndarray, reason: str) -> None:
    with pytest.raises(BrokenImage, match=reason):
        decoded(as_file(Image.fromarray(pixels), "tiff"), 4)


def test_a_photo_taken_sideways_is_turned_upright() -> None:
    sideways = Image.new("RGB", (16, 16), "black")
    sideways.paste((255, 255, 255), (0, 0, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees: left becomes top
    pixels = decoded(as_file(sideways, "png", exif=exif), 4)
    assert pixels[:, 0].min() > 200
    assert pixels[:, 3].max() < 50


@pytest.mark.parametrize("data", [b"", b"text", as_file(Image.effect_noise((64, 64), 50), "png")[:500]])
def test_damaged_files_are_told_from_pictures(data: bytes) -> None:
    with pytest.raises(BrokenImage, match=r"\w"):
        decoded(data, 4)


def test_a_gallery_looks_no_further_than_it_is_asked() -> None:
    looked: set[int] = set()

    def read(number: int) -> bytes:
        looked.add(number)
        return b"broken" if number == 1 else as_file(Image.new("RGB", (4, 4)), "png")

    gallery = Gallery(read, 5000, 4)
    sound = gallery.sound(range(5000))
    assert [next(sound), next(sound)] == [0, 2]
    assert gallery.broken == {1: "not an image"}
    assert len(looked) < 1000
