"""The README's table: one row per attack and defence, every seed once."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from tool_fakes import ran, rows

from tools.results_table import main


def shown(board: Path, *cells: tuple) -> list[list[str]]:
    (board / "records").mkdir(parents=True)
    for number, (_, stored) in enumerate(cells):
        (board / "records" / f"{number}.json").write_text(stored.model_dump_json())
    result = CliRunner().invoke(main, [str(board)], catch_exceptions=False)
    return rows(result.output)


def test_seeds_are_pooled_and_the_latest_record_of_a_seed_counts(tmp_path: Path) -> None:
    old = ran(seed=10, asr=(10, 100), finished="2026-11-20T00:00:00+00:00")
    new = ran(seed=10, asr=(90, 100), finished="2026-11-21T00:00:00+00:00")
    [row] = shown(tmp_path / "board", old, new, ran(seed=11, asr=(70, 100)))
    assert row[:3] == ["`backdoor_badnet` (vegetable)", "`none`", "10,11"]
    assert row[3].startswith("160/200 = 0.800") and row[4:] == ["0.020", "+0.780", "0.400", "0.600", "0/200"]
