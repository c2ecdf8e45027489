"""A plugin is found by its name, and no stranger's plugin can break the suite."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from poisonbench import registry
from poisonbench.defense import Defense
from poisonbench.errors import UserError
from poisonbench.registry import Registry, attacks, defense_contract, defenses

GOOD = """
from poisonbench.defense import Defense, DefenseCard, DefenseConfig

class Good(Defense):
    "A defence that does nothing."
    card = DefenseCard(title="good", paper="-", year=2026, track="none")

class NoCard(Defense):
    "A defence that says nothing of itself."

class BadDefault(Good):
    "A defence whose default breaks its own rule."
    class Config(DefenseConfig):
        from pydantic import Field
        strength: float = Field(2.0, le=1)

class Varied(Good):
    "A defence with variants."
    class Config(DefenseConfig):
        strength: float = 1.0
    presets = {"strong": {"strength": 2.0}}

class BadPreset(Varied):
    "A defence whose preset sets what it does not have."
    presets = {"strong": {"force": 2.0}}

class ShoutedPreset(Varied):
    "A defence whose preset cannot be typed."
    presets = {"STRONG!": {}}

class BadConfig(Good):
    "A defence whose configuration is not one."
    Config = dict

stranger = 3
"""


class Shelf:
    """Installed packages made up for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, **plugins: str) -> None:
        """A package that declares defences, each as ``module:attribute``."""
        lines = [f"{name} = {value}" for name, value in plugins.items()]
        self.write(
            f"{distribution}-1.0.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n",
        )
        self.write(
            f"{distribution}-1.0.dist-info/entry_points.txt", "\n".join(["[poisonbench.defenses]", *lines])
        )

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def entries(self) -> list[EntryPoint]:
        return [entry for found in distributions(path=[str(self.folder)]) for entry in found.entry_points]

    def registry(self) -> Registry[Defense]:
        return Registry("defense", self.entries(), defense_contract)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf(tmp_path)
    shelf.write("pb_good.py", GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pb_good", raising=False)
    return shelf


def test_a_plugin_is_imported_when_it_is_asked_for_and_not_before(shelf: Shelf) -> None:
    shelf.install("pb_extra", mine="pb_good:Good")
    plugins = shelf.registry()
    assert plugins.names() == ["mine"]
    assert "pb_good" not in sys.modules
    assert plugins.get("mine").name == "mine"
    assert plugins.get("mine") is plugins.get("mine")
    assert plugins.problems() == []


def test_a_preset_is_found_behind_a_colon_and_a_wrong_one_gets_a_suggestion(shelf: Shelf) -> None:
    shelf.install("pb_extra", mine="pb_good:Varied", plain="pb_good:Good")
    plugins = shelf.registry()
    assert plugins.find("mine:strong") == (plugins.get("mine"), "strong")
    assert plugins.find("mine") == (plugins.get("mine"), "")
    assert plugins.variants() == ["mine", "mine:strong", "plain"]
    with pytest.raises(UserError, match="unknown variant 'stron' of defense 'mine'; did you mean 'strong'"):
        plugins.find("mine:stron")
    with pytest.raises(UserError, match="'plain' has no variants"):
        plugins.find("plain:strong")


def test_an_unknown_name_gets_a_suggestion(shelf: Shelf) -> None:
    shelf.install("pb_extra", mixing="pb_good:Good")
    with pytest.raises(UserError, match=r"unknown defense 'mixign'; did you mean 'mixing'\?"):
        shelf.registry().get("mixign")


def test_the_suites_own_plugin_keeps_its_name(shelf: Shelf) -> None:
    shelf.install("a_rival", roclip="pb_missing:Nothing")
    shelf.install("poisonbench", roclip="pb_good:Good")
    plugins = shelf.registry()
    assert plugins.get("roclip").__name__ == "Good"
    [problem] = plugins.problems()
    assert (problem.name, problem.distribution) == ("roclip", "a-rival")
    assert "taken by poisonbench" in problem.reason


def test_of_two_strangers_the_first_by_name_stays_and_both_are_reported(shelf: Shelf) -> None:
    shelf.install("zebra", mine="pb_missing:Nothing")
    shelf.install("aardvark", mine="pb_good:Good")
    plugins = shelf.registry()
    assert plugins.names() == ["mine"]
    assert plugins.get("mine").__name__ == "Good"
    assert [problem.distribution for problem in plugins.problems()] == ["aardvark", "zebra"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("pb_nowhere:Plugin", "importing pb_nowhere:Plugin failed with ModuleNotFoundError"),
        ("pb_good:Absent", "failed with AttributeError"),
        ("pb_raises:Plugin", "failed with ZeroDivisionError: division by zero"),
        ("pb_exits:Plugin", "failed with SystemExit"),
        ("pb_good:stranger", "pb_good:stranger is not a subclass of Defense"),
        ("pb_good:NoCard", r"NoCard has no card; add 'card = DefenseCard\(...\)'"),
        ("pb_good:BadDefault", "its defaults: field 'strength'.*less than or equal to 1"),
        ("pb_good:BadPreset", "preset 'strong': unknown field 'force'"),
        ("pb_good:ShoutedPreset", "preset 'STRONG!': a preset is named like a plugin"),
        ("pb_good:BadConfig", "BadConfig.Config is not a subclass of DefenseConfig"),
    ],
)
def test_a_broken_plugin_is_reported_and_skipped(
    shelf: Shelf, value: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.write("pb_raises.py", "1 / 0")
    shelf.write("pb_exits.py", "import sys; sys.exit(3)")
    shelf.install("pb_extra", broken=value, mine="pb_good:Good")
    plugins = shelf.registry()
    with caplog.at_level(logging.WARNING, "poisonbench.registry"):
        assert list(plugins.usable()) == ["mine"]
        assert [problem.name for problem in plugins.problems()] == ["broken"]
    assert len(caplog.records) == 1, "one warning, however often it is met"
    with pytest.raises(UserError, match=f"defense 'broken' of pb-extra cannot be used: .*{reason}"):
        plugins.get("broken")


@pytest.mark.parametrize("name", ["../up", "Upper", "all", "mine:preset", "two words"])
def test_a_name_that_cannot_be_used_is_refused_with_the_reason(shelf: Shelf, name: str) -> None:
    shelf.install("pb_extra", **{name: "pb_good:Good"})
    plugins = shelf.registry()
    assert plugins.names() == []
    with pytest.raises(UserError, match="lower-case letters"):
        plugins.get(name)


def test_an_unfinished_attack_says_what_is_missing(shelf: Shelf) -> None:
    shelf.write("pb_half.py", "from poisonbench.attack import Attack\nclass Half(Attack):\n    'Half.'\n")
    shelf.install("pb_extra", half="pb_half:Half")
    plugins = Registry("attack", shelf.entries(), registry.attack_contract)
    with pytest.raises(UserError, match="Half does not define poison and probe"):
        plugins.get("half")


def test_the_suites_plugins_come_through_the_same_door() -> None:
    assert {"none", "backdoor_badnet", "targeted"} <= set(attacks().names())
    assert {"none", "augment_only", "roclip", "otcclip"} <= set(defenses().names())
    assert attacks().get("none").name == "none"


def test_refresh_looks_again() -> None:
    before = defenses()
    assert defenses() is before
    registry.refresh()
    assert defenses() is not before


def test_names_cost_no_heavy_import() -> None:
    code = """
import sys
from poisonbench.registry import attacks, defenses
attacks().names(), defenses().names()
sys.exit(", ".join({"torch", "open_clip", "poisonbench.attacks"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
