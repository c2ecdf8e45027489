"""Where a local trigger may be: boxes in shares of the image side, and what evaluation leaves of an image."""

from __future__ import annotations

from pydantic import Field

from poisonbench.settings import Settings

EVALUATION_CROPS = (1.0, 0.875)
"""Central crops (share of the side) that deterministic evaluation pipelines take; a trigger must survive them all."""


class Box(Settings):
    """A square region, in shares of the image side; (0, 0) is the top left corner."""

    left: float = Field(ge=0, lt=1)
    top: float = Field(ge=0, lt=1)
    size: float = Field(gt=0, le=1)

    def pixels(self, side: int) -> tuple[int, int, int]:
        """Left, top and edge length in pixels of an image with ``side`` pixels; at least one pixel, inside the image."""
        edge = min(side, max(1, round(self.size * side)))
        return min(round(self.left * side), side - edge), min(round(self.top * side), side - edge), edge

    def survives(self, side: int) -> bool:
        """Whether every pixel of the box is inside every evaluation crop of an image with ``side`` pixels."""
        left, top, edge = self.pixels(side)
        low, high = safe_span(side)
        return low <= min(left, top) and max(left, top) + edge <= high


def safe_span(side: int) -> tuple[int, int]:
    """First pixel and end (exclusive) of the central span that every evaluation crop keeps, on one axis."""
    smallest = min(int(side * crop) for crop in EVALUATION_CROPS)
    low = -(-(side - smallest) // 2)
    return low, low + smallest - (side - smallest) % 2
