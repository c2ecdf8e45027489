import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from user_data import drawing, encoded, pictures, said, write_images, write_tar

from poisonbench.errors import UserError
from poisonbench.sources import Data
from poisonbench.sources.opening import open_data
from poisonbench.sources.pictures import squared
from poisonbench.tier import DataSpec

SIDE = 8


def opened(tmp_path: Path, shards: str) -> Data:
    write_images(tmp_path / "eval", ["cat/1.png", "dog/2.png"])
    evaluation = (f"folder:{tmp_path / 'eval'}",)
    return open_data(
        DataSpec(source=f"wds:{tmp_path / shards}", evaluation=evaluation, clean=0, validation=0), SIDE
    )


def test_braces_name_every_shard_and_each_image_keeps_its_caption(tmp_path: Path) -> None:
    for shard in range(3):
        numbers = [2 * shard, 2 * shard + 1]
        files = {
            f"s/{n:03}.{end}": data
            for n in numbers
            for end, data in (("png", encoded(n)), ("txt", f"thing {n}\n".encode()))
        }
        write_tar(tmp_path / f"part-{shard:03}.tar", files)
    data = opened(tmp_path, "part-{000..002}.tar")
    assert said(data.train) == [f"thing {n}" for n in range(6)]
    assert np.array_equal(pictures(data.train), np.stack([squared(drawing(n), SIDE) for n in range(6)]))
    assert said(opened(tmp_path, "part-*.tar").train) == said(data.train)


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "png", "webp"])
def test_image_kinds_and_json_captions(tmp_path: Path, kind: str) -> None:
    caption = json.dumps({"caption": "a fox", "width": 12}).encode()
    data = encoded(1, "jpeg" if kind == "jpg" else kind)
    write_tar(tmp_path / "a.tar", {f"x.{kind}": data, "x.json": caption, "x.cls": b"3", "._x.jpg": b"junk"})
    found = opened(tmp_path, "a.tar")
    assert found.train.captions == [("a fox",)]
    assert found.skipped == ()


def test_unusable_samples_are_named_by_shard_and_key(tmp_path: Path) -> None:
    good = {"good.png": encoded(1), "good.txt": b"a fox"}
    bad = {"torn.png": encoded(2)[:50], "torn.txt": b"a hen", "mute.png": encoded(3), "blind.txt": b"a cat"}
    odd = {"odd.png": encoded(4), "odd.json": b"{not json"}
    write_tar(tmp_path / "a.tar", good | bad | odd)
    data = opened(tmp_path, "a.tar")
    assert said(data.train) == ["a fox"]
    assert [line.split(":")[0] for line in data.skipped] == [
        "a.tar/torn",
        "a.tar/mute",
        "a.tar/blind",
        "a.tar/odd",
    ]


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ("a-{0..3}.tar", r"a-2\.tar and 1 more shards do not exist"),
        ("none.tar", r"none\.tar does not exist"),
        ("b.tar", r"b\.tar is no intact"),
    ],
)
def test_missing_or_damaged_shards_are_named(tmp_path: Path, shards: str, message: str) -> None:
    for number in range(2):
        write_tar(tmp_path / f"a-{number}.tar", {"x.png": encoded(1), "x.txt": b"a fox"})
    (tmp_path / "b.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(UserError, match=message):
        opened(tmp_path, shards)


def test_remote_shards_are_refused() -> None:
    with pytest.raises(UserError, match="download the shards"):
        open_data(DataSpec(source="wds:https://example.org/{0..9}.tar"), SIDE)


def test_names_with_dots_are_pairs_unless_they_are_further_files_of_one(tmp_path: Path) -> None:
    dotted = {"img.0001.png": encoded(1), "img.0001.txt": b"a fox"}
    further = {"x.png": encoded(2), "x.seg.png": encoded(3), "x.txt": b"a hen"}
    write_tar(tmp_path / "a.tar", dotted | further)
    data = opened(tmp_path, "a.tar")
    assert sorted(said(data.train)) == ["a fox", "a hen"]
    assert data.skipped == ()


def test_a_name_that_returns_is_another_pair(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in (1, 2):
            for ending, content in (("png", encoded(number)), ("txt", f"thing {number}".encode())):
                member = tarfile.TarInfo(f"x.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    data = opened(tmp_path, "a.tar")
    assert said(data.train) == ["thing 1", "thing 2"]
    assert np.array_equal(pictures(data.train), np.stack([squared(drawing(n), SIDE) for n in (1, 2)]))


def spoiled(whole: bytes, how: str) -> bytes:
    third = whole.index(b"2.png")
    return {
        "cut before a header": whole[:third],
        "cut in a header": whole[: third + 100],
        "a damaged header": whole[:third] + b"\xff" * 200 + whole[third + 200 :],
        "two in one": whole + whole,
    }[how]


@pytest.mark.parametrize("how", ["cut before a header", "cut in a header", "a damaged header", "two in one"])
def test_a_shard_of_which_the_rest_would_be_lost_is_refused(tmp_path: Path, how: str) -> None:
    files = {f"{n}.{end}": data for n in range(4) for end, data in (("png", encoded(n)), ("txt", b"a fox"))}
    write_tar(tmp_path / "a.tar", files)
    (tmp_path / "a.tar").write_bytes(spoiled((tmp_path / "a.tar").read_bytes(), how))
    with pytest.raises(UserError, match=r"a\.tar is no intact"):
        opened(tmp_path, "a.tar")


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ({"captions": [{"caption": "a fox", "id": 7}, {"caption": "a red fox"}]}, ("a fox", "a red fox")),
        ({"caption": "", "text": "a fox"}, ("a fox",)),
        ({"caption": {"text": "a fox"}}, ("a fox",)),
        ({"caption": False, "title": 3.0}, ("3",)),
    ],
)
def test_captions_are_found_inside_json(tmp_path: Path, content: object, captions: tuple[str, ...]) -> None:
    data = b"\xef\xbb\xbf" + json.dumps(content).encode()
    write_tar(tmp_path / "a.tar", {"x.png": encoded(1), "x.json": data})
    assert opened(tmp_path, "a.tar").train.captions == [captions]
