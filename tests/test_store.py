"""Records on disk: whole or absent, and judged by their undefended twins."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from cell_fakes import cells, keep, stored

from poisonbench.durable import write_atomically
from poisonbench.errors import UserError
from poisonbench.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def test_what_was_committed_is_loaded(store: Store) -> None:
    [cell] = cells()
    assert store.load(cell) is None
    keep(store, cell, stored(cell))
    record = store.load(cell)
    assert record is not None
    assert record.model_dump(exclude={"valid"}) == stored(cell).model_dump()
    assert [path.name for path in store.root.iterdir()] == [cell.folder]


def test_a_cell_that_was_never_run_has_no_record(store: Store) -> None:
    with pytest.raises(UserError, match=r"no record .*record\.json"):
        store.need(cells()[0])


def test_a_full_disk_leaves_the_old_record_and_no_debris(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cell] = cells()
    keep(store, cell, stored(cell, asr=0.8))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"--out .*No space left"):
        keep(store, cell, stored(cell, asr=0.9))
    record = store.load(cell)
    assert record is not None and record.asr is not None and record.asr.value == 0.8
    assert [path.name for path in store.root.iterdir()] == [cell.folder]


def test_an_interrupted_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"odd": 1}', "\udcff"])
def test_a_damaged_record_is_named(store: Store, text: str, caplog: pytest.LogCaptureFixture) -> None:
    damaged, sound = cells(seeds=(0, 1))
    for cell in (damaged, sound):
        keep(store, cell, stored(cell))
    path = store.path(damaged)
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(UserError, match=r"record\.json") as caught:
        store.load(damaged)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert [record.seed for record in store.records()] == [1]
    assert str(path) in caplog.text
    assert [str(path) in problem for problem in store.problems()] == [True]


@pytest.mark.parametrize(
    ("asr", "base", "valid"),
    [(0.9, 0.1, True), (0.6, 0.1, True), (0.5, 0.0, True), (0.59, 0.1, False), (0.9, 0.5, False)],
)
def test_an_attack_is_valid_where_it_works_undefended(
    store: Store, asr: float, base: float, valid: bool
) -> None:
    twin, defended = cells(defenses=("none", "augment_only"))
    keep(store, defended, stored(defended, asr=0.0, base=0.0))
    assert store.need(defended).valid is None
    keep(store, twin, stored(twin, asr, base))
    assert [store.need(cell).valid for cell in (twin, defended)] == [valid, valid]
    assert [record.valid for record in store.records()] == [valid, valid]


def test_only_the_same_attack_seed_and_data_make_a_twin(store: Store) -> None:
    defended = cells(defenses=("augment_only",))[0]
    keep(store, defended, stored(defended))
    other_seed, targeted = cells(seeds=(1,))[0], cells("targeted")[0]
    for cell in (other_seed, targeted):
        keep(store, cell, stored(cell))
    twin = cells()[0]
    keep(store, twin, stored(twin, data="other art"))
    assert store.need(defended).valid is None


def test_a_failed_twin_says_nothing(store: Store) -> None:
    twin, defended = cells(defenses=("none", "augment_only"))
    keep(store, twin, stored(twin, failure="diverged"))
    keep(store, defended, stored(defended))
    assert store.need(defended).valid is None


def test_without_a_goal_there_is_no_validity(store: Store) -> None:
    [clean] = cells("none")
    keep(store, clean, stored(clean))
    assert store.need(clean).valid is None


def test_a_place_that_cannot_be_written_is_found_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for root in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(UserError, match=f"--out {root}: cannot write there"), Store(root).opened():
            pytest.fail("the run began")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_is_found_before_the_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"), store.opened():
        pytest.fail("the run began")
    assert not store.root.exists()


def test_a_second_runner_waits_for_the_first(store: Store) -> None:
    [cell] = cells()
    store.root.mkdir()
    waits, order = threading.Event(), []

    def second() -> None:
        with store.claimed(cell, waits.set):
            order.append("second")

    with store.claimed(cell):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert list(store.root.iterdir()) == []
