"""Collects public-domain drawings from the Open Clip Art package, with cleaned titles."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from tools.clipart.drawing import Drawing, concept_key
from tools.clipart.hypernyms import FOLDERS, FOREIGN, KINDRED, MIXED, TOPS
from tools.clipart.lexicon import Lexicon

ROOT = "usr/share/openclipart/svg"
SKIPPED = re.compile(
    r"^(shapes/stars|shapes/jigsaw|shapes/flowchart|computer/icons|computer/buttons|buttons|logos"
    r"|recreation/games/cards|special/gradients|special/examples|unsorted/duplicates)\b"
)
GENERIC = re.compile(
    r"symbol signs|road ?signs|map symbols|etiquette icons|contour|collection|^card$|^various|lib ?mark",
    re.I,
)
DROPPED = re.compile(
    r"hitler|nazi|swastika|svastica|porn|nude|naked|\bsex|genital|penis|vagina|microsoft|windows"
    r"|tux\b|cretin|incazzat|\bchav\b",
    re.I,
)
NOISE = re.compile(
    r"\b(clip ?art|by|remix|svg|bw|b and w|r|tango|architetto|rollandin|francesco|none|hash|openclipart"
    r"|s[iu]bmission|iconset|aj|arki|skoynk|ganson|rpswb|kallisti|rpg map elements)\b",
    re.I,
)
KEYWORD_NOISE = re.compile(
    r"hash|mapsym|appicon|unsorted|entertainment|activities|menu|icon|none|externalsource|sign|symbol|image"
    r"|clip ?art|color"
)
PUBLIC_DOMAIN = re.compile(r'license rdf:(?:resource|about)="[^"]*public ?domain', re.I)


def open_clip_art(folder: Path, lexicon: Lexicon) -> Iterator[Drawing]:
    """Yield every usable drawing of the package."""
    root = folder / ROOT
    for path in sorted(root.rglob("*.svg")):
        place = path.relative_to(root).as_posix()
        if SKIPPED.match(place):
            continue
        drawing = _drawing(place, path.read_text(errors="replace"), lexicon)
        if drawing:
            yield drawing


def _drawing(place: str, svg: str, lexicon: Lexicon) -> Drawing | None:
    metadata = "".join(re.findall(r"<rdf:RDF.*?</rdf:RDF>", svg, re.DOTALL)[:1])
    creator = _first(r"<dc:creator>.*?<dc:title>(.*?)</dc:title>", metadata)
    tags = _keywords(metadata, creator)
    label = _label(place, _first(r"<dc:title>(.*?)</dc:title>", metadata), creator)
    if not label or not PUBLIC_DOMAIN.search(metadata) or DROPPED.search(" ".join([label, place, *tags])):
        return None
    hypernym = hypernym_of(place, label, tags, lexicon)
    if hypernym == "flag" and "flag" not in label:
        label = f"flag of {label}"
    return Drawing("openclipart", place, "PD", svg, label, concept_key(label), hypernym, tags)


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    return html.unescape(found[1]).strip() if found else ""


def _keywords(metadata: str, creator: str) -> tuple[str, ...]:
    """Return the drawing's keywords without bookkeeping, folders and its author's name."""
    words = [html.unescape(word).strip().lower() for word in re.findall(r"<rdf:li>(.*?)</rdf:li>", metadata)]
    plain = [
        word
        for word in words
        if re.fullmatch(r"[a-z][a-z ]{2,19}", word)
        and not KEYWORD_NOISE.fullmatch(word)
        and word not in creator.lower()
        and "rollandin" not in word
    ]
    return tuple(dict.fromkeys(plain))


def _label(place: str, title: str, creator: str) -> str:
    """Return a clean title, or the file's name where the title says nothing."""
    title = re.sub(r"^.*clipart by [^-]*- *", "", title, flags=re.I)
    label = "" if GENERIC.search(title.replace("_", " ")) or len(title) > 48 else _clean(title, creator)
    return label or _clean(_file_title(place, creator), creator)


def _file_title(place: str, creator: str) -> str:
    """Return the file's name up to the author's name that many end with."""
    words = [word for word in re.split(r"[_\-.]+", Path(place).stem) if word]
    names = [name for name in re.split(r"\W+", creator.lower()) if len(name) > 2]
    for position, word in enumerate(words):
        if position and len(word) > 2 and any(name.startswith(word.lower()) for name in names):
            return " ".join(words[:position])
    return " ".join(word for word in words if len(word) > 1)


def _clean(text: str, creator: str) -> str:
    """Drop numbers, author names and packaging words; translate a few foreign words."""
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    text = re.sub(r"\(.*?\)|https?\S+|\S+@\S+", " ", text)
    text = NOISE.sub(" ", re.sub(r"[^A-Za-z' ]+", " ", text))
    names = {name for name in creator.lower().split() if len(name) > 3}
    words = [word for word in text.lower().split() if word not in names and (len(word) > 1 or word == "a")]
    words = [FOREIGN.get(word, word) for word in words][:6]
    words = words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words
    return (
        ""
        if len("".join(words)) < 3 or words in (["aiga"], ["untitled"])
        else " ".join(words).removeprefix("aiga ")
    )


def hypernym_of(place: str, label: str, tags: tuple[str, ...], lexicon: Lexicon) -> str:
    """Return the superclass by folder, else by known words, else by top folder."""
    parts = place.split("/")
    if "roadsign" in tags:
        return "sign"
    by_title = lexicon.hypernym(label)
    by_word = by_title or lexicon.hypernym(" ".join(tags))
    trusted = by_word in KINDRED.get(parts[0], ()) or (by_title and "/".join(parts[:2]) in MIXED)
    if by_word and trusted:
        return by_word
    return FOLDERS.get("/".join(parts[:2])) or by_word or TOPS.get(parts[0], "object")
