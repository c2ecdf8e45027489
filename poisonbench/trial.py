"""One cell, told top to bottom: data, poison, defence, training, evaluation, record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from poisonbench.attack import Probe
from poisonbench.cell import Cell
from poisonbench.curating import curated
from poisonbench.defense import Defense
from poisonbench.desk import Desk
from poisonbench.device import peak_memory, prepare
from poisonbench.evaluation import evaluate
from poisonbench.evaluation.attack_probe import check_probe
from poisonbench.evaluation.detection import note_curation
from poisonbench.evaluation.examination import Examination
from poisonbench.evaluation.measure import Measures, measure
from poisonbench.evaluation.outputs import Outputs
from poisonbench.evaluation.validation import validation_accuracy
from poisonbench.lab import Lab
from poisonbench.neutralized import Neutralized
from poisonbench.pairs import Pairs
from poisonbench.poisoning import poisons
from poisonbench.precision import precision_on
from poisonbench.progress import Journal, Progress
from poisonbench.provenance import provenance
from poisonbench.randomness import Key, numpy_rng, stable_seed
from poisonbench.records import Cost, Failure, PluginUse, PoisonCount, RepairCandidate, Stored
from poisonbench.registry import attacks, defenses
from poisonbench.repair import Unrepaired, repaired
from poisonbench.screening import screened
from poisonbench.slots import Checkpoints
from poisonbench.sources import Data
from poisonbench.sources.opening import open_data
from poisonbench.sources.vocabulary import tokenizer_for
from poisonbench.towers import Towers, build_towers, image_side
from poisonbench.training import Diverged, Training, fit
from poisonbench.undefended import Undefended, save_model
from poisonbench.validity import UNDEFENDED


@dataclass
class Measured:
    """What a trial learns on its way to the record."""

    data: str = ""
    poisoned: str = ""
    headline: str = ""
    poison: PoisonCount | None = None
    frontier: list[RepairCandidate] = field(default_factory=list)
    training: Training = field(default_factory=Training)
    training_seconds: float = 0.0
    curation_seconds: float = 0.0
    shared_seconds: float = 0.0
    earlier_seconds: float = 0.0
    evaluation_seconds: float = 0.0


def run_trial(cell: Cell, desk: Desk, progress: Progress | None = None) -> Stored:
    """Run one cell and leave its manifest, weights and predictions in ``desk.folder``.

    What an earlier process left unfinished on the desk is taken up where its last checkpoint was made.

    Returns:
        The record, for the store to write; ``failed`` with reason and step when the loss diverged.

    Raises:
        UserError: for what the user can mend (data, target, sizes).
    """
    started, journal, seen = time.perf_counter(), Journal(progress or Progress()), Measured()
    try:
        outputs = _story(cell, desk, journal, seen)
    except (Diverged, FloatingPointError, Unrepaired) as error:
        failure = Failure(reason=str(error), step=getattr(error, "step", None))
        return _record(cell, journal, seen, None, failure, time.perf_counter() - started)
    return _record(cell, journal, seen, outputs, None, time.perf_counter() - started)


def _story(cell: Cell, desk: Desk, progress: Progress, seen: Measured) -> Outputs:
    attack = attacks().get(cell.attack.name)(cell.attack.config)
    defense = defenses().get(cell.defense.name)(cell.defense.config)
    prepare(cell.device, cell.tier.recipe.threads)

    progress.phase("opening the data")
    data = open_data(cell.tier.data, image_side(cell.tier.model.name), progress)
    for line in data.skipped:
        progress.note(f"skipped: {line}")
    seen.data, seen.headline = data.fingerprint, data.headline.name

    progress.phase("poisoning")
    manifest = poisons(cell, attack, data, desk.folder, desk.poisons)
    poisoned = manifest.apply(data.train, data.targets)
    seen.poisoned = poisoned.fingerprint
    probe = attack.probe(manifest, data.assets, numpy_rng(cell.seed, "probe", cell.attack.name))
    if probe is not None:
        check_probe(probe, data.tasks)

    undefended = Undefended.found(desk.twin, poisoned.fingerprint) if desk.twin else None
    seen.shared_seconds = undefended.seconds if undefended else 0.0
    lab, fresh = _lab(cell, defense, data, poisoned, progress, desk, undefended)
    seen.earlier_seconds = lab.checkpoints.earlier
    curation, seen.curation_seconds = curated(defense, poisoned, lab)
    watch = Neutralized(manifest, poisoned, len(data.train), curation, data.headline.classes)
    towers = _trained(cell, defense, lab.on(curation.applied(poisoned)), watch, seen, undefended)
    lab = replace(lab, optimizer_state=seen.training.optimizer_state)
    repair = repaired(defense.repair(lab), lab, towers, partial(validation_accuracy, data), seen.training)
    seen.frontier = repair.frontier()
    towers = repair.towers
    seen.training_seconds = lab.checkpoints.spent
    seen.poison = watch.count()

    progress.phase("evaluating")
    started = time.perf_counter()
    outputs = evaluate(towers.eval(), fresh("model").eval(), data, probe, progress=progress)
    outputs = screened(defense.screen(towers, lab.during("screen")), outputs, data, probe)
    note_curation(outputs, curation, manifest.rows(len(data.train)))
    seen.frontier = repair.frontier(partial(_glance, data=data, probe=probe, progress=progress))
    seen.evaluation_seconds = time.perf_counter() - started

    outputs.save(desk.folder / "predictions.parquet")
    shared = cell.defense.name == UNDEFENDED
    save_model(towers, seen.training.optimizer_state if shared else {}, desk.folder)
    return outputs


def _lab(
    cell: Cell,
    defense: Defense,
    data: Data,
    poisoned: Pairs,
    progress: Progress,
    desk: Desk,
    undefended: Undefended | None,
) -> tuple[Lab, Callable[[Key], Towers]]:
    tokenizer = tokenizer_for(data, cell.tier.model)
    bf16 = precision_on(cell.device, cell.tier.recipe.precision) == "bf16"

    def fresh(key: Key) -> Towers:
        seed = stable_seed(cell.seed, "init", key)
        return build_towers(cell.tier.model.name, tokenizer, seed=seed, device=cell.device, bf16=bf16)

    lab = Lab(
        pairs=poisoned, validation=data.validation, recipe=cell.tier.recipe, tokenizer=tokenizer, synonyms=data.synonyms,
        seed=cell.seed, device=cell.device, card=defense.card, fresh=fresh, progress=progress,
        checkpoints=Checkpoints.found(desk.checkpoints, f"{cell.identity}:{poisoned.fingerprint}"),
        _clean=data.clean, _classes=(data.headline.classes, data.headline.templates),
        _undefended=undefended.load if undefended else None,
    )  # fmt: skip
    return lab, fresh


def _trained(
    cell: Cell,
    defense: Defense,
    lab: Lab,
    watch: Neutralized,
    seen: Measured,
    undefended: Undefended | None,
) -> Towers:
    towers = lab.fresh("model")
    if undefended is None or not defense.card.acts_on_a_model:
        seen.training = fit(
            towers, defense.objective(lab), lab.loader(), cell.tier.recipe, lab.progress, watch.after_epoch,
            checkpoint=lab.checkpoints.slot("training"),
        )  # fmt: skip
    else:
        seen.training = Training(optimizer_state=undefended.load(towers))
    return towers


def _glance(towers: Towers, data: Data, probe: Probe | None, progress: Progress) -> Measures:
    return measure(Examination(towers, towers, data, progress).glance(probe))


def _record(
    cell: Cell,
    journal: Journal,
    seen: Measured,
    outputs: Outputs | None,
    failure: Failure | None,
    seconds: float,
) -> Stored:
    attack, defense = attacks().get(cell.attack.name).card, defenses().get(cell.defense.name).card
    found = measure(outputs, seen.headline) if outputs is not None else None
    looping = seen.training_seconds - seen.curation_seconds
    rate = seen.training.pairs / looping if looping > 0 else 0.0
    scoring = 0.0 if defense.acts_on_a_model else seen.shared_seconds
    cost = Cost(
        train_seconds=seen.training_seconds + scoring, pairs_per_second=rate, peak_memory_bytes=peak_memory(cell.device),
        evaluation_seconds=seen.evaluation_seconds, total_seconds=seconds + seen.earlier_seconds,
        shared_seconds=seen.shared_seconds, curation_seconds=seen.curation_seconds + scoring,
    )  # fmt: skip
    return Stored(
        attack=PluginUse(
            name=cell.attack.name, config=cell.attack.config, title=attack.title, variant=cell.attack.variant
        ),
        defense=PluginUse(
            name=cell.defense.name, config=cell.defense.config, title=defense.title, track=defense.track,
            reconstruction=defense.reconstruction, variant=cell.defense.variant,
        ),
        tier=cell.tier.name, seed=cell.seed, status="failed" if failure else "done", failure=failure,
        asr=found.asr if found else None, attack_retrieval=found.attack_retrieval if found else None,
        zero_shot=found.zero_shot if found else {},
        linear_probe=found.linear_probe if found else {}, retrieval=found.retrieval if found else None,
        detection=found.detection if found else None, screening=found.screening if found else None,
        poison=seen.poison, frontier=seen.frontier, cost=cost, headline=seen.headline, config=cell.model_dump(mode="json"),
        history=seen.training.history, log=journal.notes, provenance=provenance(cell, seen.data, seen.poisoned),
    )  # fmt: skip
