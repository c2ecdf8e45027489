"""``poisonbench new`` writes a project that installs, runs and keeps its contract at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from poisonbench.errors import UserError
from poisonbench.registry import Kind
from poisonbench.scaffold import class_name, create

KINDS: tuple[Kind, Kind] = ("attack", "defense")
BY_NAME = """
from poisonbench.registry import attacks, defenses
print(attacks().get("pb_fresh_attack").__name__, defenses().get("pb_fresh_defense").__name__)
"""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return "attack" if request.param == "attack" else "defense"


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module of this interpreter; what it says is in the failure's message."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_project_is_complete(kind: Kind, tmp_path: Path) -> None:
    project = create(kind, "my_idea", tmp_path)
    assert project == tmp_path / "my-idea"
    found = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert found == {"pyproject.toml", "README.md", "src/my_idea/__init__.py", "tests/test_my_idea.py"}
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert declared["entry-points"] == {
        f"poisonbench.{kind}s": {"my_idea": f"my_idea:{class_name(kind, 'my_idea')}"}
    }
    assert declared["dependencies"] == ["poisonbench"]


@pytest.mark.parametrize(
    "name", ["my_idea", "attack", "defense", "a", "my_defense", "an_idea_with_quite_a_long_name2"]
)
def test_what_is_written_is_clean_whatever_the_name(kind: Kind, name: str, tmp_path: Path) -> None:
    project = create(kind, name, tmp_path)
    run("ruff", "check", "--no-cache", ".", cwd=project)
    run("ruff", "format", "--no-cache", "--check", ".", cwd=project)


@pytest.mark.skipif(
    not (find_spec("pip") and find_spec("setuptools")), reason="pip and setuptools install it"
)
def test_it_installs_is_found_by_name_and_keeps_its_contract(tmp_path: Path) -> None:
    projects = [create(kind, f"pb_fresh_{kind}", tmp_path) for kind in KINDS]
    installed = tmp_path / "installed"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation")
    run("pip", "install", *quiet, "--target", installed, *projects, cwd=tmp_path)
    (tmp_path / "by_name.py").write_text(BY_NAME)
    assert run("by_name", cwd=tmp_path, PYTHONPATH=str(installed)).stdout == "PbFreshAttack PbFreshDefense\n"
    tests = [project / "tests" for project in projects]
    run("pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=tmp_path, PYTHONPATH=str(installed))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("My-Idea", "lower-case letters"),
        ("2fast", "lower-case letters"),
        ("", "lower-case letters"),
        ("../up", "lower-case letters"),
        ("lambda", "no word of Python's own"),
        ("none", "already registered"),
        ("json", "the name of a Python module"),
        ("torch", "the name of a Python module"),
    ],
)
def test_a_name_that_cannot_work_is_refused_and_nothing_is_written(
    kind: Kind, name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        create(kind, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "my-idea").mkdir()
    with pytest.raises(UserError, match="already exists"):
        create(kind, "my_idea", tmp_path)
    assert list((tmp_path / "my-idea").iterdir()) == []


def test_a_failure_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*my-idea: No space left on device"):
        create("defense", "my_idea", tmp_path)
    assert list(tmp_path.iterdir()) == []
