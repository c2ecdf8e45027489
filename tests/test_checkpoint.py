"""Checkpoints: what was saved comes back, and what is damaged, foreign or half written does not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from poisonbench.errors import UserError
from poisonbench.slots import SECONDS, Checkpoints, Slot, interval

TENSORS = {
    "weights": torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    ),
    "half": torch.arange(6, dtype=torch.bfloat16),
    "rows": torch.arange(5),
    "mask": torch.tensor([True, False]),
    "count": torch.tensor(7.0, dtype=torch.float64),
    "empty": torch.zeros(0),
}


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return opened(tmp_path)


def opened(folder: Path, identity: str = "cell") -> Slot:
    slot = Checkpoints(folder / "cell", identity).slot("training")
    assert slot is not None
    return slot


def save(slot: Slot, *steps: int) -> None:
    for step in steps:
        slot.save({"weights": torch.full((64,), float(step))}, {"step": step})


def step_of(slot: Slot, notes: list[str] | None = None, about: str = "") -> int | None:
    notes = [] if notes is None else notes
    saved = slot.load(about, notes.append)
    if saved is None:
        return None
    assert torch.equal(saved.tensors["weights"], torch.full((64,), float(saved.state["step"])))
    return int(saved.state["step"])


def files(slot: Slot) -> list[str]:
    return sorted(path.name for path in slot.folder.iterdir())


def test_what_was_saved_comes_back_bit_for_bit(slot: Slot) -> None:
    state = {"step": 3, "losses": [0.1, 1 / 3, 1e-300], "history": [{"loss": float("nan")}], "word": "ä"}
    slot.save(TENSORS, state)
    saved = slot.load()
    assert saved is not None and repr(saved.state) == repr(state)
    assert saved.tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert saved.tensors[name].dtype == value.dtype and torch.equal(saved.tensors[name], value)


def test_tensors_that_share_memory_are_kept_apart(slot: Slot) -> None:
    whole = torch.arange(8.0)
    slot.save({"whole": whole, "view": whole[2:5]}, {})
    saved = slot.load()
    assert saved is not None and saved.tensors["view"].tolist() == [2, 3, 4]


def test_nothing_is_loaded_where_nothing_was_saved(slot: Slot) -> None:
    assert slot.load() is None


def test_the_last_two_are_kept(slot: Slot) -> None:
    save(slot, 1, 2, 3, 4)
    assert step_of(slot) == 4
    assert files(slot) == [f"0000000{number}.{end}" for number in (3, 4) for end in ("json", "safetensors")]


def change(key: str, value: object) -> Callable[[Path], None]:
    def damage(header: Path) -> None:
        values = json.loads(header.read_text())
        header.write_text(json.dumps(values | {key: value}))

    return damage


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def tensors_of(header: Path) -> Path:
    return header.with_suffix(".safetensors")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an empty header": lambda header: header.write_text(""),
    "half a header": lambda header: header.write_text(header.read_text()[:60]),
    "no text": lambda header: header.write_bytes(b"\xff\xfe\x00"),
    "a header that is a list": lambda header: header.write_text("[]"),
    "a state of another step": change("state", {"step": 9}),
    "another time": change("spent", 1e9),
    "another schema": change("schema_version", 2),
    "an unknown field": change("more", 1),
    "tensors cut short": lambda header: os.truncate(tensors_of(header), 100),
    "no byte of tensors": lambda header: os.truncate(tensors_of(header), 0),
    "tensors with one wrong bit": lambda header: flip(tensors_of(header), -5),
    "no tensors": lambda header: tensors_of(header).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    slot: Slot, damage: Callable[[Path], object]
) -> None:
    save(slot, 1, 2)
    notes: list[str] = []
    damage(slot.folder / "00000002.json")
    assert step_of(slot, notes) == 1
    assert len(notes) == 1 and str(slot.folder / "00000002.json") in notes[0] and "refused" in notes[0]
    save(slot, 3)
    assert step_of(slot) == 3


def test_with_both_damaged_the_work_begins_anew(slot: Slot) -> None:
    save(slot, 1, 2)
    for number in (1, 2):
        flip(slot.folder / f"0000000{number}.safetensors", -1)
    notes: list[str] = []
    assert step_of(slot, notes) is None and len(notes) == 2


def test_a_checkpoint_of_another_cell_or_of_other_data_is_refused(slot: Slot, tmp_path: Path) -> None:
    save(slot, 1)
    notes: list[str] = []
    assert step_of(opened(tmp_path, "another"), notes) is None
    assert ["another cell" in note for note in notes] == [True]


def test_a_checkpoint_of_other_work_is_refused(slot: Slot) -> None:
    slot.save(TENSORS, {}, about="three epochs")
    notes: list[str] = []
    assert slot.load("four epochs", notes.append) is None
    assert ["other work" in note for note in notes] == [True]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(
    slot: Slot, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(slot, 1, 2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, full)
        with pytest.raises(OSError, match="No space left"):
            save(slot, 3)
    assert step_of(slot) == 2
    assert len(files(slot)) == 4


def test_what_a_killed_process_left_half_written_is_removed(slot: Slot) -> None:
    save(slot, 1)
    (slot.folder / ".draft-x1").write_bytes(b"half")
    (slot.folder / "00000002.safetensors").write_bytes(b"whole, but without its header")
    assert step_of(slot) == 1
    assert files(slot) == ["00000001.json", "00000001.safetensors"]


def test_time_spent_by_killed_processes_counts(slot: Slot, tmp_path: Path) -> None:
    save(slot, 1)
    first = Checkpoints.found(tmp_path / "cell", "cell")
    assert first.earlier > 0 and first.spent > first.earlier
    assert Checkpoints.found(tmp_path / "cell", "another").earlier == 0


def test_slots_are_told_apart_by_name_by_order_and_by_stage(tmp_path: Path) -> None:
    cell = Checkpoints(tmp_path, "cell")
    stage = cell.within("curate")
    slots = [cell.slot("a b"), cell.slot("a/b"), cell.slot("../up"), cell.following(), cell.following()]
    slots += [stage.following(), cell.within("screen").following()]
    folders = [slot.folder for slot in slots if slot]
    assert len(set(folders)) == 7
    assert all(tmp_path in folder.resolve().parents for folder in folders)
    again = cell.within("curate").following()
    assert again is not None and again.folder == folders[5], "every stage counts from one"


def test_without_a_folder_there_are_no_slots() -> None:
    nowhere = Checkpoints()
    assert nowhere.slot("training") is None and nowhere.within("x").following() is None
    nowhere.drop()


@pytest.mark.parametrize(("text", "seconds"), [("", 600), ("0", 0), ("2.5", 2.5)])
def test_the_interval_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    monkeypatch.setenv(SECONDS, text)
    assert interval() == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "1e3"])
def test_another_interval_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(SECONDS, text)
    with pytest.raises(UserError, match=f"{SECONDS}={text}: write seconds"):
        interval()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_loses_nothing_already_written(small_disk: Path) -> None:
    slot, reached = opened(small_disk), 0
    with pytest.raises(OSError, match="No space left"):
        for step in range(1, 100):
            slot.save({"weights": torch.full((64,), float(step)), "ballast": ballast(step)}, {"step": step})
            reached = step
    assert 2 <= reached < 99
    assert step_of(slot) == reached
    assert step_of(opened(small_disk)) == reached


def ballast(step: int) -> Tensor:
    """A little more with every step."""
    return torch.zeros(step * 16_000, dtype=torch.uint8)
