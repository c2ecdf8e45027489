"""What cells share: the poisons of an attack, and the undefended model that repairs, screens and filters need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cell_fakes as fakes
import pytest
import torch
from lives import drawn, life

from poisonbench.attack import Assets, Attack
from poisonbench.cell import Cell
from poisonbench.conformance.data import tiny_data
from poisonbench.conformance.defense_rehearsal import tiny_lab
from poisonbench.defense import DefenseCard, Objective
from poisonbench.errors import UserError
from poisonbench.manifest import Manifest
from poisonbench.pairs import Pairs
from poisonbench.poisoning import poisons
from poisonbench.progress import Progress
from poisonbench.registry import attacks
from poisonbench.resolve import Request, resolve
from poisonbench.store import RECORD, Store
from poisonbench.training import fit, state_of
from poisonbench.twin import MODEL, OPTIMIZER, is_shared
from poisonbench.undefended import Undefended, save_model

DATA = tiny_data(wanted=("vegetable",))


class Counting:
    """An attack that counts how often it is asked."""

    def __init__(self, cell: Cell) -> None:
        self.attack: Attack = attacks().get(cell.attack.name)(cell.attack.config)
        self.drawn, draw = 0, self.attack.poison

        def counted(pairs: Pairs, assets: Assets, rng: object) -> Manifest:
            self.drawn += 1
            return draw(pairs, assets, rng)  # type: ignore[arg-type]

        self.attack.poison = counted  # type: ignore[method-assign, assignment]


@pytest.fixture
def cell() -> Cell:
    return fakes.cells()[0]


def test_poisons_are_drawn_once_for_all_defences(cell: Cell, tmp_path: Path) -> None:
    attack, other = Counting(cell), fakes.cells(defenses=("roclip",))[0]
    first = poisons(cell, attack.attack, DATA, tmp_path, tmp_path / "shared")
    second = poisons(other, attack.attack, DATA, tmp_path, tmp_path / "shared")
    assert first == second and first.edits and attack.drawn == 1
    assert Manifest.model_validate_json((tmp_path / "manifest.json").read_text()) == first


def test_other_seeds_settings_data_and_tiers_have_poisons_of_their_own(cell: Cell, tmp_path: Path) -> None:
    attack = Counting(cell)
    richer = cell.attack.model_copy(update={"config": cell.attack.config | {"rate": 0.1}})
    shorter = cell.tier.data.model_copy(update={"limit": 100})
    cells = [
        cell,
        cell.model_copy(update={"seed": 1}),
        cell.model_copy(update={"attack": richer}),
        cell.model_copy(update={"tier": cell.tier.model_copy(update={"data": shorter})}),
    ]
    for one in cells:
        poisons(one, attack.attack, DATA, tmp_path, tmp_path / "shared")
    poisons(cell, attack.attack, replace(DATA, fingerprint="other"), tmp_path, tmp_path / "shared")
    assert attack.drawn == len(list((tmp_path / "shared").iterdir())) == 5


@pytest.mark.parametrize("text", ["", "{", '{"edits": [{"odd": 1}]}', "\udcff"])
def test_damaged_poisons_are_drawn_again(cell: Cell, tmp_path: Path, text: str) -> None:
    attack = Counting(cell)
    first = poisons(cell, attack.attack, DATA, tmp_path, tmp_path / "shared")
    [path] = (tmp_path / "shared").glob("*/manifest.json")
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert poisons(cell, attack.attack, DATA, tmp_path, tmp_path / "shared") == first
    assert attack.drawn == 2 and Manifest.model_validate_json(path.read_text()) == first


def test_without_a_place_to_share_poisons_are_drawn_for_the_cell_alone(cell: Cell, tmp_path: Path) -> None:
    attack = Counting(cell)
    assert poisons(cell, attack.attack, DATA, tmp_path) == poisons(cell, attack.attack, DATA, tmp_path)
    assert attack.drawn == 2 and [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.fixture
def twin(cell: Cell, tmp_path: Path) -> Path:
    """The folder of an undefended cell."""
    lab = tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="none"))
    towers = lab.fresh("model")
    recipe = lab.recipe.model_copy(update={"epochs": 1})
    done = fit(towers, Objective(), lab.loader(), recipe, Progress())
    save_model(towers, done.optimizer_state, tmp_path)
    record = fakes.stored(cell)
    source = record.provenance.model_copy(update={"poisoned_data": "poisoned"})
    text = record.model_copy(update={"provenance": source}).model_dump_json()
    (tmp_path / RECORD).write_text(text)
    return tmp_path


def test_the_undefended_model_comes_back_with_its_moments_and_its_cost(twin: Path) -> None:
    lab = tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="repair"))
    towers, untrained = lab.fresh("model"), lab.fresh("model")
    undefended = Undefended.found(twin, "poisoned")
    moments = undefended.load(towers)
    assert is_shared(twin) and undefended.seconds == 3
    names = {name for name, _ in towers.model.named_parameters()}
    assert {path.rpartition("/")[0] for path in moments} <= names
    assert {path.rpartition("/")[2] for path in moments} == {"step", "exp_avg", "exp_avg_sq"}
    pairs = zip(state_of(towers), state_of(untrained), strict=True)
    assert not all(torch.equal(one, other) for (_, one), (_, other) in pairs)


def test_a_twin_of_other_data_is_refused(twin: Path) -> None:
    with pytest.raises(UserError, match=rf"the data has changed since .*remove {twin.name} and run"):
        Undefended.found(twin, "other poisons")


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, RECORD])
def test_a_damaged_twin_is_refused_in_one_line(twin: Path, name: str) -> None:
    (twin / name).write_bytes((twin / name).read_bytes()[:50])
    lab = tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="repair"))
    with pytest.raises(UserError, match="cannot be read") as caught:
        Undefended.found(twin, "poisoned").load(lab.fresh("model"))
    assert str(twin) in str(caught.value) and "\n" not in str(caught.value)


def test_only_an_undefended_model_leaves_its_moments(tmp_path: Path) -> None:
    lab = tiny_lab(DATA, DefenseCard(title="test", paper="-", year=2026, track="none"))
    save_model(lab.fresh("model"), {}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL] and not is_shared(tmp_path)


def test_a_filter_that_scores_with_the_undefended_model_counts_its_training_and_a_repair_does_not(
    tmp_path: Path,
) -> None:
    settings = drawn(tmp_path / "data") | {"recipe.epochs": 2, "recipe.batch": 32}
    request = Request(
        ("backdoor_badnet",), ("none", "slof", "finetune"), "smoke", (0,), settings, device="cpu"
    )
    cells, store = resolve(request), Store(tmp_path / "runs")
    with life([cell for cell in cells if cell.defense.name != "none"], store) as process:
        process.join()
    undefended, filtered, repaired = (store.need(cell).cost for cell in cells)
    assert undefended and filtered and repaired, "the undefended cell was run although nobody asked for it"
    assert filtered.shared_seconds == repaired.shared_seconds == undefended.train_seconds > 0
    assert filtered.train_seconds > filtered.curation_seconds > undefended.train_seconds
    assert repaired.curation_seconds == 0
