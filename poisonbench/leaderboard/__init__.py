"""From records to the leaderboard: pure functions, one page that needs nothing else, the published folder."""

from __future__ import annotations

from poisonbench.leaderboard.board import Board, boards
from poisonbench.leaderboard.render import render
from poisonbench.leaderboard.shelf import load_record, publish, published

__all__ = ["Board", "boards", "load_record", "publish", "published", "render"]
