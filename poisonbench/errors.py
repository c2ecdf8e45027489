"""Errors that a user can mend, and the sentence that tells how."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something in the user's hands is wrong: a name, a field, a file or a flag.

    The message is one line that names the culprit and the mend. The command line prints it without a
    traceback and ends with exit code 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A tail for an error message: the closest known names, or all of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    return f"known: {', '.join(names)}" if names else "none is known"


def one_line(error: BaseException) -> str:
    """The message of ``error`` without line breaks."""
    return " ".join(str(error).split())
