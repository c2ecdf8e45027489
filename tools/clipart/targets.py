"""Sets aside held-out concepts that no task scores, for targeted poisoning."""

from collections import defaultdict

from tools.clipart.drawing import concept_key, draw
from tools.clipart.hypernyms import SUPERCLASSES
from tools.clipart.tasks import Item

ABSTRACT = {
    "shape",
    "letter or number",
    "keycap",
    "flag",
    "arrow",
    "media button",
    "math symbol",
    "punctuation mark",
    "family",
    "heart",
    "symbol",
    "sign",
    "emotion symbol",
    "hair style",
}
SCORED_SHARE = 0.25
MOST_SCORED, MOST_OTHER, FEWEST = 12, 4, 4


def choose_targets(items: list[Item]) -> set[str]:
    """Return the concepts set aside, at least four of every superclass that takes part."""
    members: dict[str, set[str]] = defaultdict(set)
    homes: dict[str, set[str]] = defaultdict(set)
    for item in items:
        members[item.hypernym].add(item.concept)
        homes[item.concept].add(item.hypernym)
    chosen: set[str] = set()
    for hypernym, names in sorted(members.items()):
        alone = [name for name in names if len(homes[name]) == 1]
        most = min(MOST_SCORED, int(SCORED_SHARE * len(names))) if hypernym in SUPERCLASSES else MOST_OTHER
        if hypernym not in ABSTRACT and min(most, len(alone)) >= FEWEST:
            chosen |= set(sorted(alone, key=lambda name: draw("target", name))[:most])
    return chosen


def target_items(items: list[Item], chosen: set[str]) -> list[Item]:
    """Return the drawings of the chosen concepts, gender variants left out."""
    labels: dict[str, str] = {}
    for item in items:
        best = labels.setdefault(item.concept, item.label)
        labels[item.concept] = min(
            best, item.label, key=lambda label: (concept_key(label) != item.concept, len(label), label)
        )
    return [item for item in items if item.concept in chosen and item.label == labels[item.concept]]
