"""Reads a rendered page as a browser would, with the standard library alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "col", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    content: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, white space collapsed."""
        return " ".join(" ".join(self.strings()).split())

    @property
    def children(self) -> list[Element]:
        return [part for part in self.content if isinstance(part, Element)]

    def strings(self) -> list[str]:
        """Every piece of text inside, in document order."""
        nested = [[part] if isinstance(part, str) else part.strings() for part in self.content]
        return [piece for pieces in nested for piece in pieces]

    def all(self, tag: str) -> list[Element]:
        """Every element of that tag inside, in document order."""
        found = [self] if self.tag == tag else []
        return found + [element for child in self.children for element in child.all(tag)]

    def everything(self) -> list[Element]:
        return [self, *(element for child in self.children for element in child.everything())]


class Page(HTMLParser):
    """The element tree; fails on tags that are not closed where they should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(html)
        assert self._open == [self.root], f"never closed: {[element.tag for element in self._open[1:]]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].content.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].content.append(data)

    def rows(self, table: int = 0) -> dict[str, Element]:
        """The rows of a table by the text of their heading."""
        rows = [row for body in self.root.all("table")[table].all("tbody") for row in body.all("tr")]
        return {row.all("th")[0].text: row for row in rows}


def cell(row: Element, column: str) -> Element:
    """The number of a row in a column such as "0-asr"."""
    [found] = [data for data in row.all("td") if data.attributes.get("data-column") == column]
    return found
