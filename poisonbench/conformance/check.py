"""What a check is: one promise of a contract, and whether a plugin keeps it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

Plugin = type[Any]
P = ParamSpec("P")
R = TypeVar("R")


class Broken(AssertionError):
    """A plugin does not keep a promise; the message says which and how to mend it."""


def require(kept: bool, message: str) -> None:
    """Raise ``Broken`` with ``message`` unless ``kept``."""
    if not kept:
        raise Broken(message)


def once(work: Callable[P, R]) -> Callable[P, R]:
    """The same work, done once for the same arguments."""
    return cache(work)  # type: ignore[return-value]


class Result(NamedTuple):
    """The outcome of one check.

    Attributes:
        check: the check's name.
        passed: whether the promise is kept.
        message: the promise if it is kept, else what is wrong.
    """

    check: str
    passed: bool
    message: str


@dataclass(frozen=True)
class Check:
    """One promise of a contract.

    Attributes:
        name: of the check, in words joined by underscores.
        promise: the sentence that must be true of the plugin.
        verify: raises for a plugin class that breaks the promise.
    """

    name: str
    promise: str
    verify: Callable[[Plugin], None]

    @classmethod
    def of(cls, verify: Callable[[Plugin], None]) -> Check:
        """A check named after a function, whose docstring is the promise."""
        return cls(verify.__name__, (verify.__doc__ or "").splitlines()[0], verify)

    def __call__(self, plugin: Plugin) -> None:
        """Verify ``plugin``; for tests, which want the traceback.

        Raises:
            Broken: when the promise is not kept; any other error is the plugin's own.
        """
        self.verify(plugin)

    def __str__(self) -> str:
        return self.name

    def result(self, plugin: Plugin) -> Result:
        """Verify ``plugin`` and put what was found into one line."""
        try:
            self.verify(plugin)
        except Broken as broken:
            return Result(self.name, False, str(broken))
        except Exception as error:
            return Result(
                self.name, False, f"{type(error).__name__}: {_line(error)} ({_place(error, plugin)})"
            )
        return Result(self.name, True, self.promise)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _place(error: Exception, plugin: Plugin) -> str:
    """Where the error left the plugin's own file, or else where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == inspect.getsourcefile(plugin)]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
