"""The README's table: one row per attack and defence, every seed once."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from tool_fakes import board, ran, rows

from tools.results_table import main


def shown(folder: Path, *cells: tuple) -> list[list[str]]:
    result = CliRunner().invoke(main, [str(board(folder, *cells))], catch_exceptions=False)
    return rows(result.output)


def test_seeds_are_pooled_and_the_latest_record_of_a_seed_counts(tmp_path: Path) -> None:
    old = ran(seed=10, asr=(10, 100), finished="2026-11-20T00:00:00+00:00")
    new = ran(seed=10, asr=(90, 100), finished="2026-11-21T00:00:00+00:00")
    [row] = shown(tmp_path / "board", old, new, ran(seed=11, asr=(70, 100)))
    assert row[:3] == ["`backdoor_badnet` (vegetable)", "`none`", "10,11"]
    assert row[3].startswith("160/200 = 0.800") and row[4:] == ["0.020", "+0.780", "0.400", "0.600", "0/200"]


def test_a_budget_that_is_not_the_usual_one_has_a_row_of_its_own_that_says_so(tmp_path: Path) -> None:
    usual = [ran(seed=seed, asr=(90, 100)) for seed in (10, 11)]
    found = shown(tmp_path / "board", *usual, ran(seed=10, asr=(20, 100), settings={"attack.rate": 0.003}))
    assert [row[0] for row in found] == [
        "`backdoor_badnet` (vegetable)",
        "`backdoor_badnet` (vegetable, rate=0.003)",
    ]
    assert [row[3].split(" =")[0] for row in found] == ["180/200", "20/100"]


def test_an_attack_that_does_not_work_has_its_gain_in_brackets(tmp_path: Path) -> None:
    weak, defended = ran(asr=(5, 100)), ran(defense="roclip", asr=(3, 100))
    assert [row[5] for row in shown(tmp_path / "board", weak, defended)] == ["(+0.030)", "(+0.010)"]


def test_another_recipe_has_a_row_of_its_own(tmp_path: Path) -> None:
    short = ran(asr=(1, 100), settings={"recipe.epochs": 1}, finished="2026-11-29T00:00:00+00:00")
    found = shown(tmp_path / "board", ran(asr=(90, 100)), short)
    assert {row[0]: row[3].split(" =")[0] for row in found} == {
        "`backdoor_badnet` (vegetable)": "90/100",
        "`backdoor_badnet` (vegetable, recipe.epochs=1)": "1/100",
    }
