"""Folder names by which data sets tell what is trained on from what is not."""

from __future__ import annotations

import re

TRAIN_SPLIT = re.compile(r"train(ing)?([-_ ]?\d+)?", re.IGNORECASE)
OTHER_SPLIT = re.compile(r"(val|valid|validation|dev|test|testing|eval)([-_ ]?\d+)?", re.IGNORECASE)
