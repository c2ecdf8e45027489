"""What every collector of art hands to the rest of the build."""

import hashlib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """One vector drawing with what is known about its content.

    Attributes:
        source: Name of the collection, as printed in the attribution.
        ident: Name of the drawing inside its collection.
        license: SPDX-like identifier, or `PD` for a public-domain dedication.
        svg: The drawing itself.
        label: A short human-readable name.
        concept: Key that all drawings of the same thing share.
        hypernym: Readable name of the superclass.
        tags: Further keywords, best first.
        twin: `flat` or `shaded` for the held-out vendor, else empty.
    """

    source: str
    ident: str
    license: str
    svg: str
    label: str
    concept: str
    hypernym: str
    tags: tuple[str, ...] = ()
    twin: str = ""

    @property
    def key(self) -> str:
        """Identity of the drawing over all collections."""
        return f"{self.source}/{self.ident}"


def draw(*parts: str) -> int:
    """Return a pseudo-random integer that depends on nothing but `parts`."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")


def share(*parts: str) -> float:
    """Return a pseudo-random number in [0, 1) that depends on nothing but `parts`."""
    return draw(*parts) / 2**64


def singular(word: str) -> str:
    """Strip an English plural ending, roughly but always in the same way."""
    if len(word) < 4 or word.endswith(("ss", "us", "is", "ous")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("shes", "ches", "sses", "xes", "toes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") else word


def concept_key(text: str) -> str:
    """Reduce a label or title to the key under which equal things meet."""
    words = re.findall(r"[^\W_]+", text.lower().replace("’", "").replace("'", ""))
    if words and words[0] in {"a", "an", "the"}:
        words = words[1:]
    if words:
        words[-1] = singular(words[-1])
    return " ".join(words)
