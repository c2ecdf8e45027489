"""The other commands: what there is, what it is, and a start for one's own."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from cell_fakes import cells, keep, stored
from command_line import Shell
from pydantic import Field

import poisonbench
from poisonbench import registry
from poisonbench.conformance import Result
from poisonbench.describe import described
from poisonbench.errors import UserError
from poisonbench.settings import Settings
from poisonbench.store import Store


def test_help_names_every_command_and_gives_an_example(shell: Shell) -> None:
    text = shell("--help").stdout
    assert all(name in text for name in ("run", "show", "list", "new", "check", "leaderboard"))
    assert "poisonbench run --attack backdoor_badnet --defense otcclip" in text
    assert shell().stdout == text


@pytest.mark.parametrize("command", ["run", "show", "new", "check", "leaderboard"])
def test_every_commands_help_has_an_example(shell: Shell, command: str) -> None:
    assert f"  poisonbench {command}" in shell(command, "--help").stdout


def test_version(shell: Shell) -> None:
    assert shell("--version").stdout == f"poisonbench {poisonbench.__version__}\n"


@pytest.mark.parametrize("name", ["smoke", "clipart"])
def test_show_tier_prints_the_declaration(shell: Shell, name: str) -> None:
    text = shell("show", "tier", name).stdout
    assert text.rstrip() in (Path(poisonbench.__file__).parent / "tiers" / f"{name}.yaml").read_text()
    assert yaml.safe_load(text)["name"] == name


@pytest.mark.parametrize(
    ("kind", "name"), [("attack", "backdoor_badnet"), ("attack", "none"), ("defense", "augment_only")]
)
def test_show_plugin_tells_card_documentation_and_every_field(shell: Shell, kind: str, name: str) -> None:
    text = " ".join(shell("show", kind, name).stdout.split())
    plugin = (registry.attacks() if kind == "attack" else registry.defenses()).get(name)
    assert plugin.card.title in text and plugin.card.paper in text
    assert (plugin.__doc__ or "").split()[0] in text
    assert all(field in text for field in plugin.Config.model_fields)


def test_show_attack_tells_its_variants_and_shows_a_variant_with_its_own_values(shell: Shell) -> None:
    text = " ".join(shell("show", "attack", "backdoor_blended:stripes").stdout.split())
    assert text.startswith("backdoor_blended:stripes (Blended)")
    assert "backdoor_blended:triangles picture=triangles, ratio=0.15" in text
    assert "stripes what is blended in" in text.replace("cat | noise | stripes | triangles |", "")
    wrong = shell("show", "attack", "backdoor_blended:stripe")
    assert wrong.exit_code == 2 and "did you mean 'stripes'" in wrong.stderr


def test_show_attack_draws_its_poisons(shell: Shell) -> None:
    result = shell("show", "attack", "backdoor_sig", "--tier", "smoke", "--pictures", "sig.png")
    assert result.exit_code == 0 and result.stdout == "wrote sig.png\n"
    assert shell.written == ["sig.png"]
    refused = shell("show", "attack", "none", "--tier", "smoke", "--pictures", "none.png")
    assert refused.exit_code == 2 and "poisons nothing" in refused.stderr


def test_a_fields_meaning_may_stand_with_its_base() -> None:
    class Base(Settings):
        """Shared.

        Attributes:
            rate: share of the pairs.
        """

        rate: float = 0.1

    class Config(Base):
        """More.

        Attributes:
            size: of the trigger.
        """

        size: int = 3

    assert described(Config) == {"rate": "share of the pairs.", "size": "of the trigger."}


def test_fields_are_described_by_themselves_or_by_the_docstring() -> None:
    class Config(Settings):
        """Some fields.

        Attributes:
            rate: share of the pairs,
                over two lines.
            size: not this.
        """

        rate: float = 0.1
        size: int = Field(3, description="this")
        plain: str = ""

    assert described(Config) == {"rate": "share of the pairs, over two lines.", "size": "this", "plain": ""}


def test_list_shows_plugins_tiers_and_what_is_broken(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("none", "poisonbench.defenses.none:NoDefense", "poisonbench.defenses"),
        EntryPoint("broken", "no_such_module:Thing", "poisonbench.defenses"),
    ]
    found = registry.Registry("defense", entries, registry.defense_contract)
    monkeypatch.setattr(registry, "defenses", lambda: found)
    result = shell("list")
    assert result.exit_code == 0 and result.stderr == ""
    text = " ".join(result.stdout.split())
    assert all(name in text for name in ("backdoor_badnet", "targeted", "smoke", "clipart"))
    assert "Variants: noise, stripes, triangles, text." in text
    problems = text.partition("problems")[2]
    assert "broken" in problems and "No module named 'no_such_module'" in problems


@pytest.mark.parametrize(("passed", "status"), [(True, 0), (False, 1)])
def test_check_reports_every_promise(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, passed: bool, status: int
) -> None:
    results = [Result("complete", True, "fine"), Result("round_trip", passed, "the second")]
    monkeypatch.setattr("poisonbench.conformance.check_plugin", lambda name: results)
    result = shell("check", "my_idea")
    assert result.exit_code == status
    assert f"my_idea: {1 + passed} of 2 promises kept" in result.stdout
    assert ("BROKEN  round_trip: the second" in result.stdout) is not passed


def test_new_writes_a_project_and_says_what_comes_next(shell: Shell) -> None:
    result = shell("new", "defense", "my_idea")
    assert result.exit_code == 0
    assert "my_idea" in result.stdout and "poisonbench check my_idea" in result.stdout
    assert list(shell.folder.rglob("pyproject.toml"))


def test_leaderboard_renders_what_is_published_where_there_are_no_runs(shell: Shell) -> None:
    assert shell("leaderboard", "--out", "board").exit_code == 2
    (shell.folder / "board" / "records").mkdir(parents=True)
    assert shell("leaderboard", "--out", "board").exit_code == 0
    assert (shell.folder / "board" / "index.html").exists()
    misspelt = shell("leaderboard", "--runs", "rnus", "--out", "board")
    assert misspelt.exit_code == 2 and "--runs rnus" in misspelt.output


def test_run_in_python_makes_one_cell() -> None:
    with pytest.raises(UserError, match="run makes one cell"):
        poisonbench.run(attack="all", tier="smoke")


def test_leaderboard_publishes_what_is_in_runs(shell: Shell) -> None:
    [cell] = cells()
    keep(Store(Path("runs")), cell, stored(cell))
    result = shell("leaderboard", "--out", "board")
    assert result.exit_code == 0, result.output
    assert (shell.folder / "board" / "index.html").is_file()
    assert "published 1 from runs" in result.stdout
