"""Data are told apart by what is in them, and not by where they lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from user_data import encoded, write_csv, write_images, write_tar

from poisonbench.resolve import Request, resolve
from poisonbench.sources.stamp import stamp
from poisonbench.tier import DataSpec


def write_pairs(folder: Path, captions: list[str]) -> None:
    write_images(folder, [f"{i}.png" for i in range(len(captions))])
    write_csv(folder, [(f"{i}.png", caption) for i, caption in enumerate(captions)])


def identity(source: Path | str) -> str:
    request = Request(("none",), ("none",), "smoke", data=str(source), device="cpu")
    return resolve(request)[0].identity


def test_a_folder_is_known_by_its_captions_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, other = tmp_path / "box", tmp_path / "elsewhere" / "box 2"
    write_pairs(box, ["a fox", "a hen"])
    shutil.copytree(box, other)
    first = identity(box)
    monkeypatch.chdir(tmp_path)
    assert {identity("box"), identity(other)} == {first}
    write_pairs(box, ["a fox", "a hen", "a cat"])
    assert identity(box) != first == identity(other)


def test_shards_are_known_by_their_sizes_and_times(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"a-{number}.tar", {"x.png": encoded(number), "x.txt": b"a fox"})
    first = identity(pattern := f"wds:{tmp_path}/a-{{0..1}}.tar")
    assert identity(pattern) == first != identity(f"wds:{tmp_path}/a-0.tar")
    write_tar(tmp_path / "a-1.tar", {"x.png": encoded(7), "x.txt": b"a fox"})
    assert identity(pattern) != first


def test_pictures_to_judge_by_are_known_by_their_names_and_sizes(tmp_path: Path) -> None:
    write_images(tmp_path / "eval", ["cat/1.png", "dog/2.png"])
    spec = DataSpec(evaluation=(f"folder:{tmp_path / 'eval'}",))
    first = stamp(spec)
    assert stamp(spec) == first != stamp(DataSpec())
    write_images(tmp_path / "eval", ["dog/3.png"])
    assert stamp(spec) != first


def test_what_is_not_there_is_known_by_its_name() -> None:
    known = {stamp(DataSpec(source=name)) for name in ("clipart", "hf:a/b", "hf:a/c", "no/such/folder")}
    assert len(known) == 4


def test_folders_without_captions_are_known_by_their_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert stamp(DataSpec(source=f"hf:{tmp_path}/one")) != stamp(DataSpec(source=f"hf:{tmp_path}/two"))
