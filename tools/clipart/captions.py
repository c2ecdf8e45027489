"""Writes a handful of natural captions for each drawing, always the same ones."""

import re

import numpy as np

from tools.clipart.drawing import Drawing, draw
from tools.clipart.hypernyms import SUPERCLASSES, UNCOUNTED

MASS = {"weather", "money", "computer equipment", "lab equipment", "kitchenware"}
CLASS_WORDS = {word for name in SUPERCLASSES for word in name.split()} | {"clothes", "food", "animal"}
COLOURS = {
    "red": (215, 45, 45),
    "orange": (245, 145, 45),
    "yellow": (252, 205, 60),
    "green": (85, 165, 70),
    "blue": (50, 125, 205),
    "purple": (135, 80, 170),
    "pink": (245, 140, 175),
    "brown": (130, 85, 55),
    "black": (35, 35, 38),
    "gray": (135, 140, 145),
}
PLAIN = ("{p}", "clip art of {p}", "a picture of {p}", "an icon of {p}", "a drawing of {p}")
WITH_CLASS = ("{p}, {h}", "clip art of {p}, {h}", "{h}: {c}", "a picture of {h}: {p}", "{p}, a kind of {n}")
CLASS_ALONE = ("a picture of {h}",)
WITH_TAGS = ("{c}: {t}", "{p}, {t}", "{h}, {c}, {t}", "clip art of {p}, {t}", "{h}: {c} ({t})")
WITH_SCENE = (
    "{p} on a {b} background",
    "clip art of {p} on {b}",
    "{h} on a {b} background: {c}",
    "{c}, {h}, on {b}",
)
WITH_COLOUR = ("{p}, mostly {k}", "a {k} drawing of {p}", "{h} drawn in {k}: {c}", "a {k} clip art of {p}")


def article(phrase: str) -> str:
    """Put `a` or `an` before a phrase, none before plurals, substances and names."""
    words = phrase.split(" with ")[0].split()
    head = words[-1] if words else ""
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is", "lens"))
    if plural or head in UNCOUNTED or words[:1] in (["a"], ["an"], ["the"], ["no"]):
        return phrase
    return f"an {phrase}" if re.match(r"[aei]|o(?!ne)|u(?!ni|se|sa)", phrase) else f"a {phrase}"


def spoken(label: str) -> str:
    """Rewrite a catalogue label the way a caption would put it, without an article."""
    text = (
        label.lower()
        .replace("keycap: ", "keycap ")
        .replace("kiss: ", "kiss between ")
        .replace(": facing", " facing")
    )
    text = re.sub(r"^[a-z]+(-thirty| o'clock)$", r"clock showing \g<0>", text)
    head, _, rest = text.partition(": ")
    return f"{head} with {' and '.join(rest.split(', '))}" if rest else head


def phrase_of(label: str) -> str:
    """Return the noun phrase for a label, with its article."""
    text = spoken(label)
    if text.startswith("flag of "):
        return f"the {text}"
    return text if label[:1].isupper() and label[1:2].islower() else article(text)


def colour_of(pixels: np.ndarray) -> str | None:
    """Name the colour of most of the drawing, if one prevails."""
    flat = pixels.reshape(-1, 3).astype(np.float64)
    ink = flat[np.abs(flat - flat[0]).sum(1) > 60]
    if len(ink) < 40:
        return None
    palette = np.array(list(COLOURS.values()))
    nearest = ((ink[:, None] - palette) ** 2).sum(-1).argmin(1)
    counts = np.bincount(nearest, minlength=len(palette))
    return list(COLOURS)[counts.argmax()] if counts.max() > 0.55 * len(ink) else None


def caption_tags(drawing: Drawing) -> list[str]:
    """Return up to two keywords that add something and name no other class."""
    known = set(re.findall(r"\w+", f"{drawing.label} {drawing.hypernym}".lower()))
    fresh = [
        tag
        for tag in drawing.tags
        if re.fullmatch(r"[a-z]{3,}( [a-z]{3,})?", tag)
        and not known & set(tag.split())
        and not CLASS_WORDS & set(tag.split())
    ]
    return sorted(fresh, key=lambda tag: draw("tag", drawing.key, tag))[:2]


def captions(drawing: Drawing, pixels: np.ndarray, background: str) -> list[str]:
    """Return the drawing's captions, the canonical one first."""
    name = drawing.hypernym
    words = {
        "p": phrase_of(drawing.label),
        "c": spoken(drawing.label),
        "n": name,
        "h": name if name in MASS else article(name),
        "b": background,
        "t": ", ".join(caption_tags(drawing)),
        "k": colour_of(pixels) or "",
    }
    named = re.search(rf"\b{re.escape(name)}s?\b", words["c"]) is not None
    groups: list[tuple[str, ...]] = [
        PLAIN[:0] if named else WITH_CLASS,
        PLAIN,
        WITH_TAGS if words["t"] else (),
        PLAIN if named else WITH_CLASS,
        CLASS_ALONE,
    ]
    groups.append(WITH_COLOUR if words["k"] and draw("scene", drawing.key) % 2 else WITH_SCENE)
    written = [_pick(forms, words, drawing.key, place, named) for place, forms in enumerate(groups) if forms]
    return list(dict.fromkeys(written))


def _pick(forms: tuple[str, ...], words: dict[str, str], key: str, place: int, named: bool) -> str:
    """Fill one form of a group; forms that add the class to a label that has it fall out."""
    fitting = [form for form in forms if not (named and ("{h}" in form or "{n}" in form))] or list(forms)
    return fitting[draw("form", key, str(place)) % len(fitting)].format(**words)
