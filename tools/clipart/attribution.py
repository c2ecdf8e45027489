"""Writes the attribution that the licences of the sources ask for."""

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.clipart.corpus import Pair
from tools.clipart.tasks import Item, Task

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Credit:
    """Where a source comes from and to whom it owes thanks."""

    title: str
    authors: str
    package: str
    licence: str
    home: str
    notice: str = ""

    def block(self, source: str, rows: int) -> str:
        """Return the source's section of the attribution."""
        lines = [
            f"### `{source}`: {self.title}\n",
            f"- Authors: {self.authors}",
            f"- Package: {self.package}",
            f"- Licence: {self.licence}",
            f"- Home: {self.home}",
            f"- Rows: {rows}",
        ]
        return "\n".join([*lines, *([f"- Notice: {self.notice}"] if self.notice else []), ""])


def credits_by_source() -> dict[str, Credit]:
    """Read whom each source owes thanks to."""
    entries = tomllib.loads((HERE / "credits.toml").read_text())
    return {source: Credit(**entry) for source, entry in entries.items()}


def attribution(pairs: Sequence[Pair], tasks: Sequence[Task], targets: Sequence[Item]) -> str:
    """Return the attribution with the number of rows of every source.

    Raises:
        ValueError: If a source has no credit.
    """
    counts = Counter(pair.drawing.source for pair in pairs)
    counts.update(item.source for task in tasks for item in task.items)
    counts.update(item.source for item in targets)
    thanks = credits_by_source()
    if missing := counts.keys() - thanks.keys():
        raise ValueError(f"no credit for {sorted(missing)}")
    blocks = [credit.block(source, counts[source]) for source, credit in thanks.items() if counts[source]]
    head, tail = ((HERE / f"attribution_{part}.md").read_text() for part in ("head", "tail"))
    return "\n".join([head, "## Pictures\n", *blocks, tail])
