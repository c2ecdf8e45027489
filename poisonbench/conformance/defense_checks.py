"""What a defence promises; every function is one check, and its docstring is the promise.

The defence is rehearsed: it curates a tiny data set and trains a tiny model in the suite's own loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from poisonbench.conformance.check import Broken, Check, Plugin, require
from poisonbench.conformance.common import complete, config_round_trip, unknown_field
from poisonbench.conformance.data import digest, every, laconic, tiny_data
from poisonbench.conformance.defense_rehearsal import (
    EPOCHS,
    interrupted,
    later,
    rehearse,
    rehearsed,
    repaired,
    tiny_lab,
    trained,
)
from poisonbench.defense import Candidate, Pass, Screen
from poisonbench.evaluation.ranking import auroc
from poisonbench.towers import Towers
from poisonbench.training import state_of

DRAWS = "draw only from lab.rng, lab.numpy_rng or batch.rng"
LACONIC = 3
"""Every so-manieth row of a rehearsal has one caption where others have several."""
TELLING = 0.6
"""How far apart rows of two kinds must be judged, from 0 to 1, before it is no accident."""


def curates(plugin: Plugin) -> None:
    """What is decided before training has one entry per row, and some rows are kept."""
    run = rehearsed(plugin)
    rows, found = len(run.data.train), run.curation
    if found.keep is not None:
        _require_array(found.keep, np.bool_, rows, "keep")
        require(bool(found.keep.any()), "keep leaves no row to train on")
    if found.scores is not None:
        _require_finite(found.scores, rows, "curate's scores")
    for row, texts in found.captions.items():
        require(0 <= row < rows, f"row {row} is re-captioned, but there are {rows} rows")
        require(
            bool(texts) and all(text.strip() for text in texts), f"row {row} is re-captioned with {texts!r}"
        )


def judges_contents(plugin: Plugin) -> None:
    """Rows are judged by what they show and say, and not by how many captions they have."""
    run = rehearse(plugin, laconic(tiny_data(), LACONIC))
    short = np.arange(len(run.data.train)) % LACONIC == 0
    advice = "poisons may have fewer captions than other rows, which no attacker is bound to"
    gap = run.distrusted[short].mean() - run.distrusted[~short].mean()
    require(abs(gap) < TELLING, f"rows with a single caption are kept or dropped for that; {advice}")
    if run.curation.scores is not None:
        found = auroc(run.curation.scores, short)
        assert found is not None  # there are rows of both kinds
        told = abs(2 * found - 1)
        require(told < TELLING, f"curate's scores tell rows with a single caption from others; {advice}")


def plans(plugin: Plugin) -> None:
    """Every epoch's passes visit rows that exist, and some of them train."""
    run = rehearsed(plugin)
    require(bool(run.notes.passes), f"the first epoch could not be planned: {run.crash!r:.100}")
    for epoch, passes in run.notes.passes.items():
        for one in passes:
            _require_pass(one, len(run.lab.pairs), f"a pass of epoch {epoch}")
    some = any(one.train for passes in run.notes.passes.values() for one in passes)
    require(some, "no pass of any epoch trains (Pass.train is False in all of them)")


def trains(plugin: Plugin) -> None:
    """The suite's loop runs through all epochs, and every loss is a finite scalar."""
    notes = trained(plugin).notes
    require(set(notes.passes) == set(range(1, EPOCHS + 1)), "plan was not asked once for every epoch")
    require(bool(notes.losses), "no step was made in any epoch")
    require(all(map(math.isfinite, notes.losses)), "a loss is not finite")


def reaches_both_towers(plugin: Plugin) -> None:
    """In the course of the epochs the loss moves both the image tower and the text tower."""
    missing = " or the ".join(sorted({"image", "text"} - trained(plugin).notes.moved))
    require(not missing, f"no gradient ever reaches the {missing} tower; is everything detached?")


def same_seed(plugin: Plugin) -> None:
    """The same seed gives the same decisions and the same losses, so that a cell can be repeated."""
    first, again = trained(plugin), trained(plugin, rehearse)
    one, other = first.curation, again.curation
    for what in ("keep", "scores"):
        require(_same(getattr(one, what), getattr(other, what)), f"curate's {what} differ; {DRAWS}")
    require(dict(one.captions) == dict(other.captions), f"curate's captions differ; {DRAWS}")
    require(_same(first.notes.losses, again.notes.losses), f"the losses differ; {DRAWS}")


def sees_what_it_declares(plugin: Plugin) -> None:
    """Nothing is looked at that the card does not declare in sees."""
    defense, lab = plugin(), tiny_lab(tiny_data(), plugin.card)
    try:
        lab = lab.on(defense.curate(lab.pairs, lab).applied(lab.pairs))
        towers = lab.train(defense.objective(lab))
        defense.repair(lab)
        defense.screen(towers, lab)
    except PermissionError as error:
        raise Broken(str(error)) from None


def assignments(plugin: Plugin) -> None:
    """If it says whose caption every row was trained on, it names existing rows, or -1 for none."""
    run = trained(plugin)
    rows = len(run.lab.pairs)
    for epoch, found in run.notes.assignments.items():
        _require_array(found.partner, np.int64, rows, f"epoch {epoch}: partner")
        known = (found.partner >= -1) & (found.partner < rows)
        require(bool(known.all()), f"epoch {epoch}: partner names rows outside -1 to {rows - 1}")


def state_round_trip(plugin: Plugin) -> None:
    """The objective's state is tensors alone, and a new objective that loads it has the same state."""
    run = trained(plugin)
    state = _tensors(run.objective.state_dict())
    fresh = run.defense.objective(run.lab)
    fresh.load_state_dict(load(save(state)))
    again = _tensors(fresh.state_dict())
    differs = {key for key in state.keys() & again.keys() if not _equal(state[key], again[key])}
    lost = sorted(differs | (state.keys() ^ again.keys()))
    require(not lost, f"after load_state_dict, state_dict differs in {', '.join(lost)}")


def resumes(plugin: Plugin) -> None:
    """Killed in the middle of epochs and taken up again, its training ends with the same weights and reports."""
    whole, resumed = trained(plugin), trained(plugin, interrupted)
    wrong = [f"the model's {name}" for name in _differing(whole.towers, resumed.towers)[:1]]
    for epoch, report in whole.notes.reports.items():
        found, again = (run.notes.assignments.get(epoch) for run in (whole, resumed))
        if report != resumed.notes.reports.get(epoch):
            wrong.append(f"what epoch {epoch} reports")
        if found and not (again and np.array_equal(found.partner, again.partner)):
            wrong.append(f"epoch {epoch}'s assignment")
    mend = "does state_dict hold all that a step changes, and does plan depend on nothing else?"
    require(not wrong, f"after an interruption {', '.join(wrong)} differs; {mend}")


def repairs(plugin: Plugin) -> None:
    """Its repairs are candidates by name; the loop trains each on the clean pairs, to the same end if it is killed."""
    run = trained(plugin)
    first, again = (later(plugin, run.lab).repair(run.lab) for _ in range(2))
    for name, candidate in first.items():
        kind = type(candidate).__name__
        require(isinstance(candidate, Candidate), f"repair's candidate '{name}' is a {kind}, not a Candidate")
        require(
            name in again and candidate.recipe == again[name].recipe,
            f"repair's candidate '{name}' has another recipe when it is asked for again; {DRAWS}",
        )
        whole, resumed = (repaired(plugin, name, run, deaths) for deaths in ((), (1, 2)))
        mend = "does the objective's state_dict hold all that a step changes?"
        same = not _differing(whole, resumed)
        require(same, f"killed and taken up again, candidate '{name}' ends otherwise; {mend}")


def screens(plugin: Plugin) -> None:
    """If it screens inputs, every input gets one finite score, and there is a finite threshold."""
    run = trained(plugin)
    screen, again = (later(plugin, run.lab).screen(run.towers, run.lab) for _ in range(2))
    if screen is None:
        return
    require(isinstance(screen, Screen), f"screen gives a {type(screen).__name__}, not a Screen")
    require(math.isfinite(screen.threshold), f"the threshold is {screen.threshold}")
    images = every(run.data.headline.images)
    _require_finite(scores := screen.score(images), len(images), "the screen's scores")
    same = again is not None and _same([screen.threshold, *scores], [again.threshold, *again.score(images)])
    require(same, f"the screen's scores or its threshold differ when it is asked for again; {DRAWS}")


def keeps_data(plugin: Plugin) -> None:
    """The data that the defence was given is not written on."""
    message = "the pixels or captions of the data have changed; work on a copy (.clone())"
    require(digest(rehearsed(plugin).data) == digest(tiny_data()), message)


def _require_pass(one: Pass, rows: int, what: str) -> None:
    require(math.isfinite(one.lr_scale) and one.lr_scale >= 0, f"{what} has lr_scale {one.lr_scale}")
    if one.rows is None:
        return
    indices = np.asarray(one.rows)
    listed = indices.ndim == 1 and indices.dtype.kind == "i"
    require(
        listed, f"{what} has rows of {indices.dtype} and shape {indices.shape}, not a list of row numbers"
    )
    known = (indices >= 0) & (indices < rows)
    require(bool(known.all()), f"{what} visits rows outside 0 to {rows - 1}")


def _require_array(found: object, dtype: type[np.generic], rows: int, what: str) -> None:
    array = np.asarray(found)
    right = array.dtype == dtype and array.shape == (rows,)
    wanted = f"{np.dtype(dtype)} of shape ({rows},)"
    require(right, f"{what} is {array.dtype} of shape {array.shape}, not {wanted}")


def _require_finite(found: object, rows: int, what: str) -> None:
    array = np.asarray(found)
    require(array.shape == (rows,), f"{what} have shape {array.shape}, not ({rows},)")
    require(bool(np.isfinite(array).all()), f"{what} are not all finite")


def _same(one: object, other: object) -> bool:
    """Whether two lists of numbers are one, up to rounding; nothing is the same as nothing."""
    if one is None or other is None:
        return one is other
    return len(np.asarray(one)) == len(np.asarray(other)) and np.allclose(
        np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64), rtol=1e-4
    )


def _tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    others = sorted(key for key, value in state.items() if not isinstance(value, Tensor))
    require(not others, f"state_dict holds something else than tensors: {', '.join(others)}")
    return {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}


def _differing(one: Towers, other: Towers) -> list[str]:
    """The names of the weights and buffers that two models do not share."""
    weights = zip(state_of(one), state_of(other), strict=True)
    return [name for (name, first), (_, second) in weights if not _equal(first, second)]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


CHECKS = [
    Check.of(verify)
    for verify in (
        complete, config_round_trip, unknown_field, curates, judges_contents, plans, trains, reaches_both_towers, same_seed,
        sees_what_it_declares, assignments, state_round_trip, resumes, repairs, screens, keeps_data,
    )
]  # fmt: skip
