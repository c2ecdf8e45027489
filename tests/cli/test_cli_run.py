"""``poisonbench run``: results on stdout, everything else on stderr, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cell_fakes import cells, crashing_trial, good_trial, keep, refusing_trial, stored
from command_line import Shell

from poisonbench.attempt import Trial
from poisonbench.store import Store

RUN = ("run", "--attack", "backdoor_badnet", "--tier", "smoke", "--device", "cpu")


@pytest.fixture
def fake_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, good_trial)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run",), "--attack"),
        (("run", "--attack", "badnet"), "unknown attack 'badnet'"),
        (("run", "--attack", "none", "--defense", "otclip"), "did you mean 'otcclip'"),
        (("run", "--attack", "none", "--tier", "clip-art"), "did you mean 'clipart'"),
        (("run", "--attack", "none", "--tier", "no/such.yaml"), "cannot read tier file"),
        (("run", "--attack", "none", "--seeds", "one"), "--seeds one"),
        (("run", "--attack", "none", "--workers", "0"), "--workers"),
        (("run", "--attack", "none", "--set", "recipe.epochs"), "FIELD=VALUE"),
        (("run", "--attack", "none", "--set", "recipe.epochs=many"), "recipe.epochs"),
        (("run", "--attack", "none", "--set", "recipe.epoch=3"), "did you mean 'epochs'"),
        (("run", "--attack", "backdoor_badnet", "--set", "attack.rate=2"), "rate"),
        (("run", "--attack", "none", "--tier", "cc3m-rn50"), "--data"),
        (("run", "--attack", "none", "--device", "tpu"), "--device tpu"),
        (("run", "--attack", "none", "--tier", "smoke", "--data", "no/such/folder"), "no/such/folder"),
        (("run", "--attack", "none", "--nonsense"), "--nonsense"),
        (("runn",), "runn"),
        (("show", "tier", "smok"), "did you mean 'smoke'"),
        (("show", "defense", "nonne"), "did you mean 'none'"),
        (("check", "backdoor_badnt"), "backdoor_badnet"),
        (("new", "defense", "My Idea"), "My Idea"),
        (("leaderboard", "--runs", "nowhere"), "--runs nowhere"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(
    shell: Shell, arguments: tuple[str, ...], message: str
) -> None:
    result = shell(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("poisonbench: error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert errors[0] == result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert shell.written == []


def test_a_place_that_cannot_be_written_is_one_line(shell: Shell) -> None:
    (shell.folder / "file").write_text("")
    result = shell(*RUN, "--out", "file")
    assert result.exit_code == 2
    assert result.stderr.startswith("poisonbench: error: --out file: cannot write there")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("fake_trial")
def test_json_is_the_record_and_nothing_else_on_stdout(shell: Shell) -> None:
    result = shell(*RUN, "--json")
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert record["attack"]["name"] == "backdoor_badnet"
    assert record["valid"] is True
    assert "a library that prints" in result.stderr
    assert shell.written == ["runs"]


@pytest.mark.usefixtures("fake_trial")
def test_the_same_command_again_says_so_and_shows_the_record(shell: Shell) -> None:
    first, second, third = (shell(*RUN, "--out", "there", *more) for more in ((), (), ("--force",)))
    assert first.stdout == second.stdout == third.stdout
    assert "Patch × Shield" in second.stdout and "50.0%" in second.stdout
    assert "already done" in second.stderr
    assert "already done" not in first.stderr + third.stderr
    assert shell.written == ["there"]


@pytest.mark.usefixtures("fake_trial")
def test_quiet_is_quiet(shell: Shell) -> None:
    assert shell(*RUN, "-q").stderr == "a library that prints\n"


def test_several_records_are_an_array_or_a_table(shell: Shell) -> None:
    grid = cells(seeds=(0, 1))
    for cell in grid:
        keep(Store(Path("runs")), cell, stored(cell))
    result = shell(*RUN, "--seeds", "0-1", "--json")
    assert [record["seed"] for record in json.loads(result.stdout)] == [0, 1]
    assert result.stderr.count("already done") == 2
    table = shell(*RUN, "--seed", "0,1").stdout.splitlines()
    assert table[0].split()[:3] == ["attack", "defence", "seed"]
    assert [line.split()[2] for line in table[1:]] == ["0", "1"]


def test_a_crashed_cell_is_shown_with_its_reason(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, crashing_trial)
    result = shell(*RUN)
    assert result.exit_code == 1
    assert "the plugin fell over" in result.stdout and "failed: ValueError" in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads(shell(*RUN, "--json").stdout)["status"] == "failed"


def test_what_the_trial_refuses_is_one_line_and_leaves_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, refusing_trial)
    result = shell(*RUN)
    assert result.exit_code == 2
    assert (
        result.stderr == "poisonbench: error: target 'vegtable' is not a class; did you mean 'vegetable'?\n"
    )
    assert shell.written == []


def test_a_damaged_record_is_named_and_mended_by_force(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, good_trial)
    shell(*RUN)
    path = Store(Path("runs")).path(cells()[0])
    path.write_text("{")
    result = shell(*RUN)
    assert result.exit_code == 2 and str(path) in result.stderr and "--force" in result.stderr
    assert shell(*RUN, "--force").exit_code == 0


def test_ctrl_c_is_one_line_and_leaves_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    _use(monkeypatch, interrupted)  # type: ignore[arg-type]
    result = shell(*RUN)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "poisonbench: interrupted; finished cells are kept"
    assert shell.written == []


def _use(monkeypatch: pytest.MonkeyPatch, trial: Trial) -> None:
    monkeypatch.setattr("poisonbench.trial.run_trial", trial)
