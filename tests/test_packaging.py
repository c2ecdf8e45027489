"""The package that is installed is the package that is here."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import poisonbench

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS: dict[str, Any] = PROJECT["tool"]["setuptools"]
SHELVES = {"poisonbench.attacks": "attacks", "poisonbench.defenses": "defenses"}


def folder_of(package: str) -> Path:
    """Where the sources of a package are."""
    for name, folder in SETUPTOOLS["package-dir"].items():
        if package == name or package.startswith(f"{name}."):
            return ROOT.joinpath(folder, *package.removeprefix(name).split("."))
    return ROOT.joinpath(*package.split("."))


def packages_below(folder: str, name: str) -> set[str]:
    """Every folder with an ``__init__.py``, but for the templates of other people's packages."""
    inits = (path.parent.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("__init__.py"))
    return {".".join((name, *path.parts)) for path in inits if "templates" not in path.parts}


def test_every_package_folder_is_listed_and_every_listed_package_is_a_folder() -> None:
    found = packages_below("poisonbench", "poisonbench").union(
        *(packages_below(folder, name) for name, folder in SHELVES.items())
    )
    listed = SETUPTOOLS["packages"]
    assert found <= set(listed), "a folder is missing in [tool.setuptools] packages"
    assert listed == sorted(set(listed))
    assert [package for package in listed if not folder_of(package).is_dir()] == []


def test_attacks_and_defences_are_at_the_top_and_installed_inside_the_package() -> None:
    assert SETUPTOOLS["package-dir"] == SHELVES


@pytest.mark.parametrize(
    ("package", "pattern"),
    [(package, pattern) for package, patterns in SETUPTOOLS["package-data"].items() for pattern in patterns],
)
def test_every_pattern_of_data_files_finds_something(package: str, pattern: str) -> None:
    assert any(path.is_file() for path in folder_of(package).glob(pattern))


def test_tiers_models_and_the_type_marker_are_shipped() -> None:
    data = SETUPTOOLS["package-data"]
    for package, suffix in (("poisonbench.tiers", ".yaml"), ("poisonbench.models", ".json")):
        shipped = {path for pattern in data[package] for path in folder_of(package).glob(pattern)}
        assert shipped == set(folder_of(package).rglob(f"*{suffix}")) != set()
    assert "py.typed" in data["poisonbench"] and (ROOT / "poisonbench" / "py.typed").is_file()


@pytest.mark.parametrize("group", ["poisonbench.attacks", "poisonbench.defenses"])
def test_every_entry_point_opens(group: str) -> None:
    declared = PROJECT["project"]["entry-points"][group]
    assert {"none"} < set(declared)
    for point in entry_points(group=group):
        if point.name in declared:
            assert point.value == declared[point.name], "install the package again"
            assert isinstance(point.load(), type)
    for target in declared.values():
        module, _, _ = target.partition(":")
        file = folder_of(module)
        assert file.with_suffix(".py").is_file() or (file / "__init__.py").is_file()


def test_importing_the_package_does_not_import_torch() -> None:
    probe = "import sys, poisonbench; sys.exit(', '.join({'torch', 'open_clip', 'sklearn'} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_that_the_package_offers_is_there() -> None:
    assert [name for name in poisonbench.__all__ if getattr(poisonbench, name, None) is None] == []
    assert dir(poisonbench) == sorted(poisonbench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Atack'"):
        _ = poisonbench.Atack
