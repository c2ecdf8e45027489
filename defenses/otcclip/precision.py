"""Full precision for the matcher, whatever precision its caller trains in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from poisonbench.defenses.otcclip.token_sets import TokenSets

First = TypeVar("First", bound=TokenSets | Tensor)
P = ParamSpec("P")
R = TypeVar("R")


def outside_autocast(work: Callable[Concatenate[First, P], R]) -> Callable[Concatenate[First, P], R]:
    """The same function of tokens or costs, whose products keep fp32 under any autocast of the caller."""

    @wraps(work)
    def exact(first: First, *args: P.args, **kwargs: P.kwargs) -> R:
        tokens = first.tokens if isinstance(first, TokenSets) else first
        with torch.autocast(tokens.device.type, enabled=False):
            return work(first, *args, **kwargs)

    return exact
