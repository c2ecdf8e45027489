"""The README's table: every defence against every attack, at the tier's own settings."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from tool_fakes import board, ran, rows

from tools.results_matrix import main


def shown(folder: Path, *cells: tuple) -> dict[str, list[str]]:
    result = CliRunner().invoke(main, [str(board(folder, *cells))], catch_exceptions=False)
    return {row[0]: row[1:] for row in rows(result.output)}


def test_a_cell_shows_gain_zero_shot_and_how_many_seeds(tmp_path: Path) -> None:
    undefended = [ran(seed=seed, asr=(90, 100)) for seed in (10, 11)]
    table = shown(tmp_path / "board", *undefended, ran(defense="roclip", asr=(4, 100), top1=0.3))
    assert table["`none`"][0] == "+0.88 / 0.40 (2)"
    assert table["`roclip`"][0] == "+0.02 / 0.30"


def test_a_gain_that_rounds_to_nothing_has_no_minus(tmp_path: Path) -> None:
    table = shown(tmp_path / "board", ran(), ran(defense="roclip", asr=(20, 1000), base=(24, 1000)))
    assert table["`roclip`"][0] == "+0.00 / 0.40"


def test_what_did_not_run_failed_or_is_not_valid_is_seen_as_such(tmp_path: Path) -> None:
    weak = ran(attack="backdoor_sig", asr=(30, 100))
    gone = ran(attack="backdoor_sig", defense="roclip", failure="the loss is not finite")
    table = shown(tmp_path / "board", ran(asr=(90, 100)), weak, gone)
    assert sorted(table["`none`"][:2]) == ["(+0.28) / 0.40", "+0.88 / 0.40"]
    assert sorted(table["`roclip`"][:2]) == ["failed", "·"]


def test_other_settings_and_presets_stay_out(tmp_path: Path) -> None:
    others = [ran(asr=(90, 100), settings={"attack.rate": 0.003}), ran(attack="backdoor_badnet:stripes")]
    table = shown(tmp_path / "board", ran(asr=(50, 100)), *others)
    assert table["`none`"] == ["(+0.48) / 0.40", "·"]
