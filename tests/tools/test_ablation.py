"""The ablations name settings that exist, print commands that run them, and write nothing but their own table."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from tool_fakes import judged, kept, ran, rows

from poisonbench.arguments import parse_seeds, parse_settings
from poisonbench.cli import cli
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.errors import UserError
from poisonbench.resolve import Request, resolve
from tools.ablation import (
    BEGIN,
    END,
    Ground,
    Variation,
    between_marks,
    command_lines,
    main,
    section,
    variations,
)

ATTACK, GROUND = "backdoor_badnet", Ground("clipart", "10-11")
ALL = variations()


@pytest.mark.parametrize("variation", ALL, ids=lambda variation: variation.label)
def test_the_defence_takes_every_variation(variation: Variation) -> None:
    config = GROUND.cell(ATTACK, changes=variation.changes).defense.config
    assert variation.tests
    for field, value in variation.changes.items():
        section_name, name = field.split(".")
        assert section_name == "defense" and config[name] == value


def test_labels_and_configurations_are_distinct_but_for_names_of_the_default() -> None:
    configs = [json.dumps(GROUND.cell(ATTACK, changes=one.changes).defense.config) for one in ALL]
    assert ALL[0].changes == {}
    others = [config for config in configs if config != configs[0]]
    assert len(set(others)) == len(others) >= 20
    assert len({one.label for one in ALL}) == len(ALL)


def test_every_choice_of_the_reconstruction_is_varied() -> None:
    varied = {field.removeprefix("defense.") for one in ALL for field in one.changes}
    changes_no_number, of_the_tier = {"backend"}, {"images"}
    assert varied | changes_no_number | of_the_tier == set(OTCCLIPConfig.model_fields)


def test_a_field_or_value_that_the_defence_does_not_take_is_named(tmp_path: Path) -> None:
    for change, said in (({"defense.intre": 0}, "inter"), ({"defense.beta": 2}, "beta")):
        with pytest.raises(UserError, match=said):
            GROUND.cell(ATTACK, changes=change)
    path = tmp_path / "wrong.yaml"
    path.write_text("- label: default\n  tests: a\n- label: no sentence\n")
    with pytest.raises(UserError, match=r"wrong\.yaml, variation 2: field 'tests'"):
        variations(path)


def test_the_printed_commands_ask_for_the_variations() -> None:
    lines = command_lines(ALL, ATTACK, GROUND, Path("my runs"))
    asked = [cells_of(line) for line in lines]
    assert all([cell.seed for cell in cells] == [10, 11] for cells in asked)
    assert asked[0][0].defense.name == "none"
    printed = [json.dumps(cells[0].defense.config) for cells in asked[1:]]
    meant = {json.dumps(GROUND.cell(ATTACK, changes=one.changes).defense.config) for one in ALL}
    assert len(printed) == len(meant) and set(printed) == meant


def cells_of(line: str) -> list:
    [program, command, *words] = shlex.split(line)
    assert program == "poisonbench"
    given = cli.commands[command].make_context(command, words).params
    assert given["out"] == Path("my runs")
    request = Request(
        given["attacks"], given["defenses"], given["tier"], parse_seeds(given["seeds"]), parse_settings(given["settings"]),
        device="cpu",
    )  # fmt: skip
    return resolve(request)


def test_the_table_has_every_variation_run_or_not() -> None:
    records = judged(
        ran(top1=0.5),
        ran(defense="otcclip", asr=(3, 100), top1=0.45),
        ran(defense="otcclip", asr=(50, 100), top1=0.4, settings={"defense.weight": 0}),
        ran(defense="otcclip", asr=(99, 100), settings={"defense.weight": 0, "recipe.epochs": 1}),
    )
    found = rows(section(ALL, records, [ATTACK], GROUND))
    assert len(found) == 1 + len(ALL)
    by_name = {row[0]: row for row in found}
    assert by_name["undefended"][3].startswith("90/100")
    assert by_name["default"][2:4] == ["10", "3/100 = 0.030 (0.010-0.085)"]
    left_out = by_name["suspicious rows left out (`weight=0`)"]
    assert left_out[3].startswith("50/100") and left_out[7] == "0.800"
    assert by_name["no OT loss (`inter=0`)"][2:] == ["not run", *["-"] * 8]


def test_what_all_variations_have_in_common_is_asked_for_and_tabulated() -> None:
    short = GROUND._replace(settings={"recipe.epochs": 1, "attack.rate": 0.05})
    for line in command_lines(ALL, ATTACK, short, Path("my runs")):
        assert all(
            (cell.tier.recipe.epochs, cell.attack.config["rate"]) == (1, 0.05) for cell in cells_of(line)
        )
    records = judged(
        ran(asr=(80, 100), settings=short.settings),
        ran(defense="otcclip", asr=(50, 100)),
        ran(defense="otcclip", asr=(3, 100), settings=short.settings),
    )
    page = section(ALL, records, [ATTACK], short)
    assert "--set recipe.epochs=1 --set attack.rate=0.05" in page
    undefended, default, *_ = rows(page)
    assert undefended[3].startswith("80/100") and default[3].startswith("3/100")


def test_a_record_of_earlier_code_says_what_it_did_not_know() -> None:
    cell, stored = ran(defense="otcclip")
    config = {field: value for field, value in stored.defense.config.items() if field != "weight"}
    stored = stored.model_copy(update={"defense": stored.defense.model_copy(update={"config": config})})
    [_, default, *_] = rows(section(ALL, judged((cell, stored)), [ATTACK], GROUND))
    assert default[2] == "10 (by code without defense.weight)"


def test_only_what_stands_between_the_marks_changes() -> None:
    page = f"# Title\n{BEGIN}\nold\n{END}\n\nrest\n"
    assert between_marks(page, "new", Path("p")) == f"# Title\n{BEGIN}\nnew\n{END}\n\nrest\n"
    once = between_marks("# Title\n", "new", Path("p"))
    assert once == f"# Title\n\n## Ablations\n\n{BEGIN}\nnew\n{END}\n"
    assert between_marks(once, "newer", Path("p")) == once.replace("new", "newer")
    for half in (f"{BEGIN}\nold\n", f"old\n{END}\n", f"{END}\n{BEGIN}\n"):
        with pytest.raises(UserError, match=r"page\.md: put"):
            between_marks(half, "new", Path("page.md"))


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    runs, page = kept(tmp_path / "runs", ran(defense="otcclip")), tmp_path / "README.md"
    page.write_text("# Title\n")
    done = CliRunner().invoke(main, ["--runs", str(runs), "--out", str(page)])
    assert done.exit_code == 0, done.output
    assert page.read_text().startswith("# Title\n\n## Ablations\n")
    assert ["default", "what the tier runs", "10"] in [row[:3] for row in rows(page.read_text())]
