"""What an attack promises; every function is one check, and its docstring is the promise."""

from __future__ import annotations

import numpy as np
import torch

from poisonbench.conformance.attack_rehearsal import rehearse, rehearsed, wanted_classes
from poisonbench.conformance.check import Check, Plugin, require
from poisonbench.conformance.common import complete, config_round_trip, unknown_field
from poisonbench.conformance.data import digest, tiny_data
from poisonbench.conformance.probe_checks import (
    SIDES,
    differing,
    goal_excluded,
    goals_known,
    probe_shapes,
    require_images,
    searches,
    triggered,
)
from poisonbench.errors import UserError
from poisonbench.evaluation.attack_probe import check_probe
from poisonbench.manifest import Manifest
from poisonbench.randomness import numpy_rng

RATES = (0.1, 0.05, 0.02, 0.2)
"""Poison rates at which rows are counted, the first that the attack takes: its default may be less than one row of so few."""


def same_poisons(plugin: Plugin) -> None:
    """The same generator gives the same poisons and probe, so that every defence meets the same attack."""
    first, again = rehearse(plugin), rehearse(plugin)
    advice = "for the same rng; draw only from the rng that is given"
    require(first.manifest == again.manifest, f"poison chose differently {advice}")
    other = differing(first.probe, again.probe)
    require(not other, f"probe drew other {', '.join(other)} {advice}")


def keeps_nothing(plugin: Plugin) -> None:
    """Another instance makes the same probe from the manifest's file: poisons are drawn once for all defences."""
    run = rehearsed(plugin)
    read = Manifest.model_validate_json(run.manifest.model_dump_json(exclude_defaults=True))
    again = plugin().probe(read, run.data.assets, numpy_rng("conformance", "probe", 0))
    advice = "take all that probe needs from the configuration, the manifest and the data"
    require((again is None) == (run.probe is None), f"there is a probe for one instance only; {advice}")
    other = differing(again, run.probe)
    require(not other, f"the probe's {', '.join(other)} differ; {advice}")


def other_seeds(plugin: Plugin) -> None:
    """An attack that draws chooses other poisons for another seed."""
    first, *others = (rehearse(plugin, seed=seed) for seed in range(4))
    differs = any(run.manifest != first.manifest for run in others)
    require(differs or not first.drew, "poison draws from rng, but four seeds gave the same manifest")


def applies(plugin: Plugin) -> None:
    """The manifest survives JSON, and names rows and pictures that exist, each row once."""
    run = rehearsed(plugin)
    again = Manifest.model_validate_json(run.manifest.model_dump_json())
    require(again == run.manifest, "written to JSON and read again, the manifest is not what it was")
    assert run.data.targets is not None
    limits = {"own": 1, "row": len(run.data.train), "target": len(run.data.targets.images)}
    for edit in run.edits:
        picture = edit.picture
        limit = f"{picture.source} {picture.index} of {limits[picture.source]}"
        require(
            picture.index < limits[picture.source], f"an edit takes a picture that does not exist: {limit}"
        )
        if edit.row is None:
            require(picture.source != "own", "an appended row has no image of its own; set Edit.picture")


def budget(plugin: Plugin) -> None:
    """As many rows are poisoned as the rate says, and an attack without a goal poisons none."""
    run = rehearsed(plugin)
    expected = "none" if run.probe is None else "some"
    message = f"{len(run.edits)} rows are poisoned where there should be {expected}"
    require((run.probe is None) == (not run.edits), message)
    rate = next((rate for rate in RATES if _takes(plugin, rate)), None)
    if rate is None:
        return
    found, wanted = len(rehearse(plugin, rate=rate).edits), rate * len(run.data.train)
    message = f"rate {rate} of {len(run.data.train)} pairs should poison about {wanted:.0f} rows, not {found}"
    require(abs(found - wanted) <= max(1, 0.15 * wanted), message)


def _takes(plugin: Plugin, rate: float) -> bool:
    """Whether the attack has a rate, and this one is within its bounds."""
    if "rate" not in plugin.Config.model_fields:
        return False
    try:
        plugin({"rate": rate})
    except UserError:
        return False
    return True


def clean_rows(plugin: Plugin) -> None:
    """Rows without an edit keep their image and captions."""
    run = rehearsed(plugin)
    clean, poisoned = run.data.train, run.poisoned
    require(
        len(poisoned) == len(clean) + len(run.manifest.appended), "rows were lost or added without an edit"
    )
    untouched = np.setdiff1d(np.arange(len(clean)), run.rows)
    same = torch.equal(poisoned.images.fetch(untouched), clean.images.fetch(untouched))
    require(same, "the image of a row without an edit is not the clean one")
    kept = all(poisoned.captions[row] == clean.captions[row] for row in untouched)
    require(kept, "the captions of a row without an edit are not the clean ones")


def pictures(plugin: Plugin) -> None:
    """Poisoned images are uint8 of shape (n, 3, side, side), at 32 and at 64 pixels."""
    for side in SIDES:
        run = rehearsed(plugin, side=side)
        require_images(run.poisoned.images.fetch(run.rows), len(run.rows), side, "poisoned images")


def boxes_survive(plugin: Plugin) -> None:
    """What is painted into a part of an image lies inside every evaluation crop, at 32 and at 64 pixels."""
    for side in SIDES:
        for edit in rehearsed(plugin, side=side).edits:
            box = getattr(edit.operation, "box", None)
            mend = f"an evaluation crop at {side} pixels cuts it off; keep it inside triggers.safe_span(side)"
            require(box is None or box.survives(side), f"{box!r}: {mend}")


def captions(plugin: Plugin) -> None:
    """Poisoned rows have captions that are not blank, and a target class with words to know it by."""
    run = rehearsed(plugin)
    for row, edit in zip(run.rows, run.edits, strict=True):
        options = run.poisoned.captions[row]
        written = bool(options) and all(text.strip() for text in options)
        require(written, f"poisoned row {row} has the captions {options!r}")
        require(
            edit.target in run.data.headline.classes, f"the target '{edit.target}' is no class of the task"
        )
        words = run.manifest.target_words.get(edit.target)
        require(
            bool(words), f"the manifest has no target_words for '{edit.target}'; take task.naming(target)"
        )


def presets(plugin: Plugin) -> None:
    """Every preset poisons rows and can be judged, as the default does."""
    for name, changes in plugin.presets.items():
        run = rehearse(plugin, **changes)
        require(bool(run.edits), f"preset '{name}' poisons nothing")
        require(run.probe is not None, f"preset '{name}' has no probe")
        assert run.probe is not None
        check_probe(run.probe, run.data.tasks)
        again = Manifest.model_validate_json(run.manifest.model_dump_json(exclude_defaults=True))
        require(
            again == run.manifest, f"preset '{name}': read from its file, the manifest is not what it was"
        )
        require_images(run.poisoned.images.fetch(run.rows), len(run.rows), 32, f"preset '{name}': images")


def keeps_data(plugin: Plugin) -> None:
    """The data that the attack was given is not written on."""
    before = digest(tiny_data(32, wanted_classes(plugin().config)))
    message = "poison or probe changed the pixels or captions they were given; work on a copy (.clone())"
    require(digest(rehearse(plugin).data) == before, message)


CHECKS = [
    Check.of(verify)
    for verify in (
        complete, config_round_trip, unknown_field, same_poisons, keeps_nothing, other_seeds, applies, budget, clean_rows,
        pictures, boxes_survive, captions, probe_shapes, searches, goals_known, goal_excluded, triggered,
        presets, keeps_data,
    )
]  # fmt: skip
