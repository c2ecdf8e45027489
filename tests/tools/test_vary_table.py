"""The table of cells that differ in a field: numbers by hand, nothing pooled that is not alike, nothing dropped in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tool_fakes import judged, kept, ran, rows

from poisonbench.errors import UserError
from tools.vary_table import groups, main, select, table

SCRIPT = Path(__file__).parents[2] / "tools" / "vary_table.py"


def shown(records: list, by: tuple[str, ...], defenses: tuple[str, ...] = ()) -> list[list[str]]:
    chosen = select(records, ("backdoor_badnet",), defenses, by)
    return rows(table(groups(chosen.rows, records), by))


def test_the_curve_over_rates_has_a_row_per_rate_and_defence_with_the_pooled_numbers() -> None:
    cells = []
    for rate, hits in ((0.05, 90), (0.003, 60)):
        for seed in (10, 11):
            settings = {"attack.rate": rate}
            cells.append(ran(seed=seed, asr=(hits, 100), top1=0.5, settings=settings))
            found = {"asr": (seed - 9, 100), "base": (1, 100), "top1": 0.4, "neutralized": 70, "own": 0.8}
            cells.append(ran(defense="roclip", seed=seed, settings=settings, **found))
    found = shown(judged(*cells), ("attack.rate",))
    assert [row[:3] for row in found] == [
        ["`backdoor_badnet`", "`none`", "attack.rate=0.003"],
        ["`backdoor_badnet`", "`none`", "attack.rate=0.05"],
        ["`backdoor_badnet`", "`roclip`", "attack.rate=0.003"],
        ["`backdoor_badnet`", "`roclip`", "attack.rate=0.05"],
    ]
    assert found[0][3:7] == ["10,11", "120/200 = 0.600 (0.531-0.665)", "0.020", "+0.580"]
    assert found[0][7:] == ["0.500", "1.000", "0/200 = 0.000", "-", "60"]
    assert found[2][3:7] == ["10,11", "3/200 = 0.015 (0.005-0.043)", "0.010", "+0.005"]
    assert found[2][7:] == ["0.400", "0.800", "140/200 = 0.700", "0.800", "60"]


def test_the_ratio_takes_the_twin_of_the_same_attack_settings_alone() -> None:
    twin = ran(top1=0.1)
    own = ran(defense="roclip", top1=0.4, settings={"attack.rate": 0.05})
    [_, row] = shown(judged(twin, own), ("attack.rate",))
    assert row[1] == "`roclip`" and row[8] == "-" and row[4].endswith(", twin not run")


def test_cells_that_differ_elsewhere_are_counted_and_not_shown() -> None:
    records = judged(ran(defense="roclip"), ran(defense="roclip", seed=11, settings={"defense.pool": 7}))
    chosen = select(records, ("backdoor_badnet",), ("roclip",), ("attack.rate",))
    assert [record.seed for record in chosen.rows] == [10]
    assert (chosen.left_out, chosen.in_fields) == (1, ("defense.pool",))
    with pytest.raises(UserError, match=r"also differ from the defaults in defense\.pool"):
        select(records[1:], ("backdoor_badnet",), ("roclip",), ("attack.rate",))


def test_failed_cells_are_rows_and_failed_seeds_are_named() -> None:
    records = judged(
        ran(seed=10),
        ran(seed=11, failure="killed"),
        ran(seed=10, failure="loss is not a number", settings={"attack.rate": 0.05}),
    )
    found = shown(records, ("attack.rate",))
    assert found[0][3] == "10; seed 11 failed: killed" and found[0][4].startswith("90/100")
    assert found[1][3:] == ["-; seed 10 failed: loss is not a number", *["-"] * 8]


def test_records_of_earlier_code_are_neither_dropped_nor_pooled() -> None:
    (cell, now), (_, before) = ran(defense="roclip", seed=10), ran(defense="roclip", seed=11)
    config = {field: value for field, value in before.defense.config.items() if field != "pool"}
    before = before.model_copy(update={"defense": before.defense.model_copy(update={"config": config})})
    found = shown(judged((cell, now), (cell, before)), ("attack.rate",))
    assert {(row[2], row[3]) for row in found} == {
        ("attack.rate=0.0175 (defense.pool=2048)", "10"),
        ("attack.rate=0.0175 (defense.pool unset)", "11"),
    }


def test_the_command_reads_a_runs_folder_and_its_seeds(tmp_path: Path) -> None:
    folder = kept(tmp_path / "runs", *(ran(seed=seed, asr=(seed, 100)) for seed in (10, 11)))
    command = [sys.executable, str(SCRIPT), str(folder), "--attack", "backdoor_badnet"]
    done = subprocess.run([*command, "--seeds", "11"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [row] = rows(done.stdout)
    assert row[2:5] == ["nothing", "11", "11/100 = 0.110 (0.063-0.186), attack invalid"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--attack", "backdoor_badnut"), "--attack backdoor_badnut: no record has it; did you mean 'backdoor_badnet'?"),
        (("--attack", "backdoor_badnet", "--by", "attack.rat"), "--by attack.rat: no record has it; did you mean 'attack.rate'"),
        (("--attack", "backdoor_badnet", "--defense", "roclip"), "--defense roclip: no record has it; known: none"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_one_line_that_helps(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    found = CliRunner().invoke(main, [str(kept(tmp_path / "runs", ran())), *arguments])
    assert found.exit_code == 2
    assert said in found.output.splitlines()[-1]
