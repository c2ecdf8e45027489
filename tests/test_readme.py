"""What the README shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from poisonbench.cli import cli
from poisonbench.conformance import check_plugin
from poisonbench.tier import tier_names

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_plugin_in_20_lines_keeps_the_contract() -> None:
    blocks = [
        code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "class MyIdea(Defense)" in code
    ]
    assert len(blocks) == 1
    namespace: dict[str, Any] = {"__name__": "readme_plugin"}
    exec(blocks[0], namespace)
    broken = [result for result in check_plugin(namespace["MyIdea"]) if not result.passed]
    assert not broken


def test_every_tier_is_in_the_table() -> None:
    table = next(part for part in README.split("\n\n") if part.startswith("| tier |"))
    assert all(f"`{name}`" in table for name in tier_names())


def test_every_command_that_is_shown_exists_with_its_options() -> None:
    shown = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
    calls = [call for line in shown for call in re.findall(r"poisonbench ([a-z]+)([^;#&]*)", line)]
    assert len(calls) > 8
    for command, rest in calls:
        described = CliRunner().invoke(cli, [command, "--help"])
        assert described.exit_code == 0, command
        assert all(option in described.output for option in re.findall(r"--[a-z]+", rest)), (command, rest)
