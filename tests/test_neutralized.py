"""Neutralised poisons: those that a defence removed, left out, or gave a caption that does not name the target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poisonbench.defense import Assignment, Curation, Objective
from poisonbench.manifest import Edit, Manifest, Picture
from poisonbench.neutralized import Neutralized
from poisonbench.pairs import ArrayImages, Pairs
from poisonbench.records import PoisonCount

CAPTIONS = ["a fox", "red apple", "a hound", "green pear", "a car", "an ant"]
MANIFEST = Manifest(
    edits=(
        Edit(row=4, captions=("a pear",), target="fruit"),
        Edit(row=2, captions=("an apple",), target="fruit"),
        Edit(captions=("a fox",), picture=Picture(source="row", index=5), target="animal"),
    ),
    target_words={"fruit": ("fruit", "apple", "pear"), "animal": ("animal", "fox", "hound")},
)
CLEAN = Pairs(ArrayImages(torch.zeros(6, 3, 4, 4, dtype=torch.uint8)), [(text,) for text in CAPTIONS], "six")
POISONED = MANIFEST.apply(CLEAN, None)
FOX, APPLE, STAMPED_HOUND, PEAR, STAMPED_CAR, ANT, ADDED_FOX = range(7)


class Assigned(Objective):
    """Says what it was told to say."""

    def __init__(self, *partner: int) -> None:
        self.partner = partner

    def assignment(self) -> Assignment:
        return Assignment(np.array(self.partner))


def watch(manifest: Manifest = MANIFEST, pairs: Pairs = POISONED, **curation: object) -> Neutralized:
    return Neutralized(manifest, pairs, len(CLEAN), Curation(**curation))  # type: ignore[arg-type]


def own(**changed: int) -> Assigned:
    """Every row on its own caption but for the named ones."""
    partner = list(range(7))
    for name, row in changed.items():
        partner[globals()[name]] = row
    return Assigned(*partner)


def test_new_captions_of_clean_rows_are_compared_with_their_class() -> None:
    seen = Neutralized(MANIFEST, POISONED, len(CLEAN), Curation(), classes=("fox", "apple", "ant"))
    shares = seen.after_epoch(1, own(FOX=ADDED_FOX, APPLE=ANT, PEAR=ANT, ANT=-1))
    assert shares["recaptioned_true_class"] == 0.5, (
        "the fox is right, the apple wrong, the pear of no class, the ant left out"
    )


def test_without_a_clean_row_nothing_is_said_of_clean_rows() -> None:
    every_row = tuple(Edit(row=row, captions=("a pear",), target="fruit") for row in range(len(CLEAN)))
    manifest = Manifest(edits=every_row, target_words={"fruit": ("pear",)})
    seen = watch(manifest, manifest.apply(CLEAN, None))
    assert seen.after_epoch(1, Assigned(*range(len(CLEAN)))) == {"poison_neutralized": 0.0}


def test_nothing_is_neutralised_when_every_row_keeps_its_caption() -> None:
    seen = watch()
    assert seen.after_epoch(1, Objective()) == {"clean_rows_on_own_caption": 1.0, "poison_neutralized": 0.0}
    assert seen.count() == PoisonCount(count=3, rate=3 / 7, neutralized=0)


@pytest.mark.parametrize(
    ("assigned", "neutralized"),
    [
        (own(), 0),
        (own(STAMPED_CAR=ANT), 1),
        (own(STAMPED_CAR=APPLE), 0),
        (own(STAMPED_CAR=STAMPED_HOUND), 0),
        (own(STAMPED_CAR=-1), 1),
        (own(STAMPED_CAR=FOX, STAMPED_HOUND=-1, ADDED_FOX=PEAR), 3),
        (own(ADDED_FOX=FOX), 0),
        (own(ADDED_FOX=STAMPED_HOUND), 1),
    ],
)
def test_a_poison_counts_when_its_caption_no_longer_names_its_own_target(
    assigned: Assigned, neutralized: int
) -> None:
    seen = watch()
    report = seen.after_epoch(1, assigned)
    assert seen.neutralized() == neutralized
    assert report["poison_neutralized"] == neutralized / 3


def test_clean_rows_that_lost_their_caption_are_counted_apart() -> None:
    report = watch().after_epoch(1, own(FOX=ANT, PEAR=-1))
    assert report == {"clean_rows_on_own_caption": 0.5, "poison_neutralized": 0.0}


def test_the_last_epoch_decides() -> None:
    seen = watch()
    seen.after_epoch(1, own(STAMPED_CAR=-1, STAMPED_HOUND=ANT))
    assert seen.neutralized() == 2
    seen.after_epoch(2, own(STAMPED_HOUND=ANT))
    assert seen.neutralized() == 1


def test_an_epoch_without_an_assignment_gives_every_row_its_own_caption_back() -> None:
    seen = watch()
    seen.after_epoch(1, own(STAMPED_CAR=-1, FOX=ANT))
    assert seen.after_epoch(2, Objective()) == {"clean_rows_on_own_caption": 1.0, "poison_neutralized": 0.0}


def test_a_removed_row_is_neutralised_before_training_begins() -> None:
    keep = np.ones(7, dtype=bool)
    keep[[STAMPED_HOUND, ADDED_FOX, ANT]] = False
    seen = watch(keep=keep)
    assert seen.neutralized() == 2
    assert seen.after_epoch(1, Objective()) == {
        "clean_rows_on_own_caption": 3 / 4,
        "poison_neutralized": 2 / 3,
    }


def test_after_a_removal_assignments_are_in_the_rows_that_are_left() -> None:
    keep = np.ones(7, dtype=bool)
    keep[FOX] = False  # every later row moves up by one
    seen = watch(keep=keep)
    seen.after_epoch(1, Assigned(0, 1, 2, 3, 4, 5))
    assert seen.neutralized() == 0
    seen.after_epoch(2, Assigned(0, 1, 2, 4, 4, 5))  # the stamped car takes the ant's caption
    assert seen.neutralized() == 1


def test_a_new_caption_is_judged_instead_of_the_poisoned_one() -> None:
    captions = {STAMPED_CAR: ("a Car",), STAMPED_HOUND: ("still an APPLE",), ADDED_FOX: ("a foxglove",)}
    assert watch(captions=captions).neutralized() == 2


def test_any_alternative_that_names_the_target_keeps_the_poison_alive() -> None:
    assert watch(captions={STAMPED_CAR: ("a car", "or a pear")}).neutralized() == 0


def test_without_poisons_only_clean_rows_are_reported() -> None:
    seen = watch(Manifest(), CLEAN)
    assert seen.after_epoch(1, Objective()) == {}
    assert seen.after_epoch(2, Assigned(0, 0, 2, 3, 4, 5)) == {"clean_rows_on_own_caption": 5 / 6}
    assert seen.count() == PoisonCount(count=0, rate=0.0, neutralized=0)
