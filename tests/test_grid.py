"""Many cells: order, repetition, and what a cell that goes wrong leaves behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import cell_fakes as fakes
import pytest
from cell_fakes import cells, keep, stored

from poisonbench.attempt import Trial, Verdict, Watch, settle
from poisonbench.cell import Cell
from poisonbench.desk import Desk
from poisonbench.errors import UserError
from poisonbench.grid import run_grid, undefended_first
from poisonbench.progress import Progress
from poisonbench.records import Record, Stored
from poisonbench.registry import defenses
from poisonbench.store import Store
from poisonbench.twin import twin_of
from poisonbench.workers import Worker, _next

ALL = ("all",)


class Diary(Watch):
    """Writes down what happens."""

    def __init__(self) -> None:
        self.ended: dict[int, tuple[str, str]] = {}
        self.order: list[str] = []
        self.left_out: list[str] = []
        self.phases: list[str] = []

    def begin(self, cell: Cell) -> Progress:
        diary = self

        class Phases(Progress):
            def phase(self, name: str, total: int = 0, unit: str = "pairs") -> None:
                diary.phases.append(name)

        return Phases()

    def end(self, cell: Cell, verdict: Verdict, record: Record | None) -> None:
        self.ended[cell.seed] = (verdict.word, record.status if record else "no record")
        self.order.append(cell.defense.name)

    def refused(self, cell: Cell, reason: str) -> None:
        self.left_out.append(reason)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def run(store: Store, trial: Trial, force: bool = False) -> tuple[int, Diary]:
    diary = Diary()
    return run_grid(cells(), store, diary, force=force, trial=trial), diary


def test_undefended_cells_come_first() -> None:
    grid = cells(defenses=("augment_only", "none"), seeds=(0, 1))
    ordered = [(cell.defense.name, cell.seed) for cell in undefended_first(grid)]
    assert ordered == [("none", 0), ("none", 1), ("augment_only", 0), ("augment_only", 1)]


def test_a_cell_leaves_its_files_and_its_record(store: Store) -> None:
    status, diary = run(store, fakes.good_trial)
    [cell] = cells()
    assert (status, diary.ended) == (0, {0: ("done", "done")})
    assert sorted(path.name for path in store.folder(cell).iterdir()) == ["manifest.json", "record.json"]
    assert [path.name for path in store.root.iterdir()] == [cell.folder]


def test_a_finished_cell_is_not_run_again_unless_forced(store: Store) -> None:
    run(store, fakes.good_trial)
    status, diary = run(store, fakes.crashing_trial)
    assert (status, diary.ended) == (0, {0: ("already done", "done")})
    assert run(store, fakes.crashing_trial, force=True)[0] == 1


def test_a_crash_becomes_a_record_that_says_why_and_is_tried_again(store: Store) -> None:
    status, diary = run(store, fakes.crashing_trial)
    record = store.need(cells()[0])
    assert (status, diary.ended) == (1, {0: ("failed", "failed")})
    assert record.failure is not None
    assert "ValueError: the plugin fell over (tests/cell_fakes.py:" in record.failure.reason
    assert any("crashing_trial" in line for line in record.log)
    assert record.asr is None and record.config == cells()[0].model_dump(mode="json")
    assert run(store, fakes.good_trial)[1].ended == {0: ("done", "done")}


def test_a_trial_that_ends_in_a_failed_record_fails_the_grid(store: Store) -> None:
    def diverging(cell: Cell, desk: Desk, progress: Progress) -> Stored:
        return stored(cell, failure="the loss is not finite")

    status, diary = run(store, diverging)
    assert (status, diary.ended) == (1, {0: ("failed", "failed")})


@pytest.mark.parametrize(
    ("trial", "message"),
    [(fakes.refusing_trial, "did you mean 'vegetable'"), (fakes.disk_filling_trial, "--out .*No space left")],
)
def test_a_users_mistake_leaves_nothing(store: Store, trial: Trial, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(store, trial)
    assert not store.root.exists()


def test_a_refused_repetition_leaves_the_old_record(store: Store) -> None:
    run(store, fakes.good_trial)
    with pytest.raises(UserError):
        run(store, fakes.refusing_trial, force=True)
    assert store.need(cells()[0]).status == "done"


def test_a_crashed_repetition_leaves_the_old_record(store: Store) -> None:
    run(store, fakes.good_trial)
    before = store.path(cells()[0]).read_bytes()
    status, diary = run(store, fakes.crashing_trial, force=True)
    assert (status, diary.ended) == (1, {0: ("failed", "done")})
    assert store.path(cells()[0]).read_bytes() == before


def test_a_runner_ends_when_another_has_finished_its_last_cells(store: Store) -> None:
    diary = Diary()
    assert run_grid(cells(seeds=(0, 1)), store, diary, trial=fakes.overtaken_trial) == 0
    assert {seed: word for seed, (word, _) in diary.ended.items()} == {0: "done", 1: "already done"}


def test_a_twin_with_a_damaged_record_is_named_and_run_again_by_force(store: Store) -> None:
    undefended, repairing = twins()
    settled(undefended, store, fakes.sharing_trial)
    store.path(undefended).write_text("{")
    with pytest.raises(UserError, match=undefended.folder):
        run_grid([repairing], store, Diary(), trial=fakes.sharing_trial)
    assert run_grid([repairing], store, Diary(), force=True, trial=fakes.sharing_trial) == 0


def test_what_was_asked_for_and_refused_is_said_even_if_its_twin_ran(store: Store) -> None:
    _, repairing = twins()
    with pytest.raises(UserError, match="did you mean 'vegetable'"):
        run_grid([repairing], store, Diary(), trial=fakes.picky_trial)


def test_a_finished_folder_that_cannot_be_tidied_is_still_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store, fakes.good_trial)

    def forbidden(cell: Cell) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(store.plan, "forget", forbidden)
    assert run(store, fakes.crashing_trial)[1].ended == {0: ("already done", "done")}


def test_an_interruption_leaves_nothing_half_written(store: Store) -> None:
    def interrupted(cell: Cell, desk: Desk, progress: Progress) -> Stored:
        (desk.folder / "manifest.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, interrupted)
    assert not store.root.exists()


def test_in_a_grid_one_bad_cell_costs_one_cell(store: Store) -> None:
    grid, diary = cells(seeds=(0, 1, 2, 3)), Diary()
    keep(store, cells(seeds=(4,))[0], stored(cells(seeds=(4,))[0]))
    status = run_grid([*grid, *cells(seeds=(4,))], store, diary, workers=2, trial=fakes.mixed_trial)

    assert status == 1
    assert diary.ended == {
        0: ("done", "done"),
        1: ("failed", "failed"),
        2: ("failed", "failed"),
        3: ("refused", "no record"),
        4: ("already done", "done"),
    }
    assert ["did you mean 'vegetable'" in reason for reason in diary.left_out] == [True]
    assert "training, epoch 1 of 1" in diary.phases
    assert store.need(grid[0]).log == [f"threads {grid[0].tier.recipe.threads}"]
    killed, crashed = (store.need(cell).failure for cell in grid[1:3])
    assert killed is not None and "killed by SIGKILL" in killed.reason
    assert crashed is not None and "the plugin fell over" in crashed.reason
    assert not [path for path in store.root.iterdir() if path.name.endswith(".part")]


def test_a_full_disk_ends_the_grid(store: Store) -> None:
    with pytest.raises(UserError, match="No space left"):
        run_grid(cells(seeds=(0, 1)), store, Diary(), workers=2, trial=fakes.disk_filling_trial)
    assert not store.root.exists()


def twins(defense: str = "finetune") -> tuple[Cell, Cell]:
    """A cell that repairs, and the undefended cell that it starts from."""
    undefended, repairing = cells(defenses=("none", defense))
    assert twin_of(repairing) == undefended
    return undefended, repairing


def settled(cell: Cell, store: Store, trial: Trial, force: bool = False) -> Verdict:
    store.root.mkdir(exist_ok=True)
    return settle(cell, store, Progress(), force, trial)


def test_repairs_screens_and_whoever_declares_it_need_the_undefended_model() -> None:
    started = {cell.defense.name for cell in cells(defenses=ALL) if twin_of(cell)}
    cards = {name: plugin.card for name, plugin in defenses().usable().items()}
    acting = {name for name, card in cards.items() if card.track in ("repair", "screening")}
    looking = {name for name, card in cards.items() if "undefended" in card.sees}
    assert acting and looking and started == acting | looking


def test_a_repair_starts_from_its_undefended_twin_whose_record_appears_as_well(store: Store) -> None:
    undefended, repairing = twins()
    diary = Diary()
    status = run_grid([repairing], store, diary, trial=fakes.sharing_trial)
    assert (status, diary.order) == (0, ["none", "finetune"])
    assert store.need(undefended).status == store.need(repairing).status == "done"
    assert store.need(repairing).log == [f"starts from {store.folder(undefended)}"]
    assert run_grid([repairing], store, Diary(), force=True, trial=fakes.sharing_trial) == 0


def test_a_finished_twin_is_not_run_again(store: Store) -> None:
    undefended, repairing = twins()
    settled(undefended, store, fakes.sharing_trial)
    before = store.path(undefended).stat().st_mtime_ns
    assert settled(repairing, store, fakes.sharing_trial).word == "done"
    assert settled(repairing, store, fakes.sharing_trial, force=True).word == "done"
    assert store.path(undefended).stat().st_mtime_ns == before


def test_a_twin_that_lost_its_model_is_run_again(store: Store) -> None:
    undefended, repairing = twins()
    settled(undefended, store, fakes.sharing_trial)
    (store.folder(undefended) / "optimizer.safetensors").unlink()
    assert settled(repairing, store, fakes.sharing_trial).word == "done"


def test_a_twin_that_failed_fails_what_starts_from_it_and_is_not_tried_for_each(store: Store) -> None:
    undefended, repairing = twins()
    runs = []

    def crashing(cell: Cell, desk: Desk, progress: Progress) -> Stored:
        runs.append(cell.defense.name)
        return fakes.crashing_trial(cell, desk, progress)

    verdicts = [settled(repairing, store, crashing) for _ in range(2)]
    assert runs == ["none"]
    assert store.need(undefended).status == "failed"
    for verdict in verdicts:
        assert verdict.word == "failed"
        assert f"its undefended twin {undefended.folder} failed: ValueError: the plugin" in verdict.reason


def test_a_refused_twin_refuses_what_starts_from_it(store: Store) -> None:
    undefended, repairing = twins()
    verdict = settled(repairing, store, fakes.refusing_trial)
    assert (verdict.word, store.load(undefended), store.load(repairing)) == ("refused", None, None)


def test_an_error_of_a_step_is_in_the_record_with_the_step(store: Store) -> None:
    def breaking(cell: Cell, desk: Desk, progress: Progress) -> Stored:
        error = ValueError("nothing left to match")
        error.step = 41  # type: ignore[attr-defined]
        raise error

    [cell] = cells()
    settled(cell, store, breaking)
    failure = store.need(cell).failure
    assert failure is not None and failure.step == 41 and "nothing left to match" in failure.reason


def test_a_failed_cell_keeps_its_checkpoints_and_a_done_one_does_not(store: Store) -> None:
    def leaving(cell: Cell, desk: Desk, progress: Progress) -> Stored:
        assert desk.checkpoints is not None
        seen.append(desk.checkpoints.exists())
        desk.checkpoints.mkdir(exist_ok=True)
        return next(records)

    [cell] = cells()
    seen: list[bool] = []
    records = iter([stored(cell, failure="out of memory"), stored(cell), stored(cell)])
    words = [settled(cell, store, leaving, force=True).word for _ in range(3)]
    assert words == ["failed", "done", "done"]
    assert seen == [False, True, False]
    assert [path.name for path in store.root.iterdir()] == [cell.folder]


def test_what_a_grid_was_asked_for_is_noted_until_it_has_ended(store: Store) -> None:
    asked = []

    def interrupted(cell: Cell, desk: Desk, progress: Progress) -> Stored:
        asked.extend(store.plan.asked())
        (store.root / "kept").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, interrupted)
    assert asked == store.plan.asked() == cells()
    run(store, fakes.good_trial)
    assert store.plan.asked() == []


def test_what_was_asked_of_other_code_is_forgotten_when_it_is_asked_again(store: Store) -> None:
    [cell] = cells()
    store.root.mkdir()
    old, other = cell.model_copy(update={"source": "old"}), cell.model_copy(update={"seed": 7})
    store.ask([old, other])
    store.ask([cell])
    assert {one.identity for one in store.plan.asked()} == {cell.identity, other.identity}
    store.plan.ask([old])
    with store.claimed(old):
        store.ask([cell])
        assert old in store.plan.asked(), "another runner works on it"


def test_a_worker_leaves_alone_what_another_runner_works_on(store: Store) -> None:
    undefended, repairing = twins()
    other = cells(seeds=(1,))[0]
    store.root.mkdir()
    assert _next([undefended, repairing, other], [], store) == undefended
    with store.claimed(undefended):
        assert _next([undefended, repairing, other], [], store) == other
        assert _next([undefended, repairing], [], store) == undefended, "there is nothing else to do"
    ours = Worker(undefended, None, None, Progress(), 0)  # type: ignore[arg-type]
    assert _next([repairing, other], [ours], store) == other
    assert _next([repairing], [ours], store) is None


def test_leftovers_of_a_finished_cell_are_removed(store: Store) -> None:
    [cell] = cells()
    keep(store, cell, stored(cell))
    store.plan.ask([cell])
    (store.root / f".{cell.identity}.checkpoints").mkdir()
    (store.root / f".{cell.folder}.lock").touch()
    run(store, fakes.crashing_trial)
    assert [path.name for path in store.root.iterdir()] == [cell.folder]


def test_the_lock_of_a_living_runner_stays(store: Store) -> None:
    [cell] = cells()
    keep(store, cell, stored(cell))
    with store.claimed(cell):
        run(store, fakes.crashing_trial)
        assert store.is_claimed(cell)
