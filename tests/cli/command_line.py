"""The command line as the tests call it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from poisonbench.cli import cli


class Shell:
    """The command line in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    @property
    def written(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())
