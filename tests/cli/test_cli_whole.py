"""The installed command as a person uses it: fast to answer, and one real cell from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import poisonbench

CLI = (sys.executable, "-m", "poisonbench.cli")
SMOKE = ("run", "--attack", "backdoor_badnet", "--tier", "smoke", "--device", "cpu", "--json")
SETTINGS = {"recipe.epochs": 1, "data.limit": 512}
SET = tuple(part for field, value in SETTINGS.items() for part in ("--set", f"{field}={value}"))


def call(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("module", ["poisonbench", "poisonbench.cli"])
def test_starting_up_imports_nothing_heavy(tmp_path: Path, module: str) -> None:
    heavy = "{'torch', 'open_clip', 'pydantic', 'numpy', 'sklearn', 'rich'}"
    done = call(
        sys.executable,
        "-c",
        f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))",
        folder=tmp_path,
    )
    assert done.stdout == "[]\n", done.stderr


def test_everything_that_is_exported_exists() -> None:
    assert {
        name: getattr(poisonbench, name, None) is not None for name in poisonbench.__all__
    } == dict.fromkeys(poisonbench.__all__, True)
    assert dir(poisonbench) == sorted(poisonbench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Atack'"):
        poisonbench.Atack  # noqa: B018


def test_bad_input_has_no_traceback(tmp_path: Path) -> None:
    done = call(*CLI, "run", "--attack", "none", "--defense", "nonne", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "poisonbench: error: unknown defense 'nonne'; did you mean 'none'?\n"
    assert list(tmp_path.iterdir()) == []


def test_one_real_cell_from_the_command_line_and_from_python(tmp_path: Path) -> None:
    first = call(*CLI, *SMOKE, *SET, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    _has_everything(record)

    again = call(*CLI, *SMOKE, *SET, folder=tmp_path)
    assert again.stdout == first.stdout
    assert "already done" in again.stderr and "training" not in again.stderr

    same = poisonbench.run(
        "backdoor_badnet", tier="smoke", settings=SETTINGS, out=tmp_path / "runs", device="cpu"
    )
    assert same.model_dump(mode="json") == record


def _has_everything(record: dict[str, object]) -> None:
    """Every key that the JSON promises."""
    promised = {
        "asr": {"value", "successes", "trials", "low", "high", "base"},
        "poison": {"count", "rate", "neutralized"},
        "cost": {"train_seconds", "pairs_per_second", "peak_memory_bytes"},
        "provenance": {"versions", "commit", "data", "config_hash", "seeds", "device"},
    }
    for section, keys in promised.items():
        values = record[section]
        assert isinstance(values, dict) and keys <= values.keys()
    for section in ("zero_shot", "linear_probe"):
        tasks = record[section]
        assert isinstance(tasks, dict) and tasks
        assert all({"top1", "n"} <= task.keys() for task in tasks.values())
    assert (record["status"], record["seed"], record["tier"]) == ("done", 0, "smoke")
    assert record["attack"]["name"] == "backdoor_badnet" and record["defense"]["name"] == "none"  # type: ignore[index]
    assert isinstance(record["valid"], bool) and record["schema_version"] == 1
