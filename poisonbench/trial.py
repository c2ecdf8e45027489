"""One cell, told top to bottom: data, poison, defence, training, evaluation, record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from poisonbench.attack import Attack
from poisonbench.cell import Cell
from poisonbench.defense import Defense
from poisonbench.device import peak_memory, prepare
from poisonbench.evaluation import evaluate
from poisonbench.evaluation.attack_probe import check_probe
from poisonbench.evaluation.measure import measure
from poisonbench.evaluation.outputs import Outputs
from poisonbench.evaluation.zero_shot import class_weights, logits
from poisonbench.lab import Lab
from poisonbench.manifest import Manifest
from poisonbench.neutralized import Neutralized
from poisonbench.pairs import Pairs
from poisonbench.progress import Journal, Progress
from poisonbench.provenance import provenance
from poisonbench.randomness import Key, numpy_rng, stable_seed
from poisonbench.records import Cost, Failure, PluginUse, PoisonCount, Stored
from poisonbench.registry import attacks, defenses
from poisonbench.repair import repaired
from poisonbench.screening import screened
from poisonbench.sources import Data
from poisonbench.sources.opening import open_data
from poisonbench.sources.vocabulary import tokenizer_for
from poisonbench.towers import Towers, build_towers, image_side
from poisonbench.training import Diverged, Training, fit, state_of


@dataclass
class Measured:
    """What a trial learns on its way to the record."""

    data: str = ""
    poisoned: str = ""
    headline: str = ""
    poison: PoisonCount | None = None
    training: Training = field(default_factory=Training)
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0


def run_trial(cell: Cell, folder: Path, progress: Progress | None = None) -> Stored:
    """Run one cell and leave its manifest, weights and predictions in ``folder``.

    Returns:
        The record, for the store to write; ``failed`` with reason and step when the loss diverged.

    Raises:
        UserError: for what the user can mend (data, target, sizes).
    """
    started, journal, seen = time.perf_counter(), Journal(progress or Progress()), Measured()
    try:
        outputs = _story(cell, folder, journal, seen)
    except (Diverged, FloatingPointError) as error:
        failure = Failure(reason=str(error), step=getattr(error, "step", None))
        return _record(cell, journal, seen, None, failure, time.perf_counter() - started)
    return _record(cell, journal, seen, outputs, None, time.perf_counter() - started)


def _story(cell: Cell, folder: Path, progress: Progress, seen: Measured) -> Outputs:
    attack = attacks().get(cell.attack.name)(cell.attack.config)
    defense = defenses().get(cell.defense.name)(cell.defense.config)
    prepare(cell.device, cell.tier.recipe.threads)

    progress.phase("opening the data")
    data = open_data(cell.tier.data, image_side(cell.tier.model.name), progress)
    for line in data.skipped:
        progress.note(f"skipped: {line}")
    seen.data, seen.headline = data.fingerprint, data.headline.name

    progress.phase("poisoning")
    manifest = _manifest(cell, attack, data, folder)
    poisoned = manifest.apply(data.train, data.targets)
    seen.poisoned = poisoned.fingerprint
    probe = attack.probe(manifest, data.assets, numpy_rng(cell.seed, "probe", cell.attack.name))
    if probe is not None:
        check_probe(probe, data.tasks)

    lab, fresh = _lab(cell, defense, data, poisoned, progress)
    started = time.perf_counter()
    curation = defense.curate(poisoned, lab)
    watch = Neutralized(manifest, poisoned, len(data.train), curation)
    towers = _trained(cell, defense, lab.on(curation.applied(poisoned)), watch, seen)
    towers = repaired(defense.repair(lab), lab, towers, partial(_validation_accuracy, data), seen.training)
    seen.training_seconds = time.perf_counter() - started
    seen.poison = watch.count()

    progress.phase("evaluating")
    started = time.perf_counter()
    outputs = evaluate(towers.eval(), fresh("model").eval(), data, probe, progress=progress)
    outputs = screened(defense.screen(towers, lab), outputs, data, probe)
    seen.evaluation_seconds = time.perf_counter() - started

    outputs.save(folder / "predictions.parquet")
    save_file(dict(state_of(towers)), folder / "model.safetensors")
    return outputs


def _manifest(cell: Cell, attack: Attack, data: Data, folder: Path) -> Manifest:
    """The poisons, drawn from the attack's configuration and the seed alone, so that every defence meets the same."""
    settings = json.dumps(cell.attack.config, sort_keys=True)
    rng = numpy_rng(cell.seed, "poison", cell.attack.name, settings, data.fingerprint)
    manifest = attack.poison(data.train, data.assets, rng)
    (folder / "manifest.json").write_text(manifest.model_dump_json(exclude_defaults=True))
    return manifest


def _lab(
    cell: Cell, defense: Defense, data: Data, poisoned: Pairs, progress: Progress
) -> tuple[Lab, Callable[[Key], Towers]]:
    tokenizer = tokenizer_for(data, cell.tier.model)
    bf16 = cell.tier.recipe.precision == "bf16"

    def fresh(key: Key) -> Towers:
        seed = stable_seed(cell.seed, "init", key)
        return build_towers(cell.tier.model.name, tokenizer, seed=seed, device=cell.device, bf16=bf16)

    lab = Lab(
        pairs=poisoned, validation=data.validation, recipe=cell.tier.recipe, tokenizer=tokenizer, synonyms=data.synonyms,
        seed=cell.seed, device=cell.device, card=defense.card, fresh=fresh, progress=progress,
        _clean=data.clean, _classes=(data.headline.classes, data.headline.templates),
    )  # fmt: skip
    return lab, fresh


def _trained(cell: Cell, defense: Defense, lab: Lab, watch: Neutralized, seen: Measured) -> Towers:
    towers = lab.fresh("model")
    seen.training = fit(
        towers, defense.objective(lab), lab.loader(), cell.tier.recipe, lab.progress, watch.after_epoch
    )
    return towers


@torch.inference_mode()
def _validation_accuracy(data: Data, towers: Towers) -> float:
    task = data.validation_task
    if task is None:
        raise ValueError("choosing a repair needs validation classes, which this data does not have")
    predicted = logits(towers.eval(), task.images, class_weights(towers, task)).argmax(dim=1).numpy()
    return float(np.mean(predicted == task.labels))


def _record(
    cell: Cell,
    journal: Journal,
    seen: Measured,
    outputs: Outputs | None,
    failure: Failure | None,
    seconds: float,
) -> Stored:
    attack, defense = attacks().get(cell.attack.name).card, defenses().get(cell.defense.name).card
    found = measure(outputs) if outputs is not None else None
    rate = seen.training.pairs / seen.training_seconds if seen.training_seconds else 0.0
    cost = Cost(
        train_seconds=seen.training_seconds, pairs_per_second=rate, peak_memory_bytes=peak_memory(cell.device),
        evaluation_seconds=seen.evaluation_seconds, total_seconds=seconds,
    )  # fmt: skip
    return Stored(
        attack=PluginUse(name=cell.attack.name, config=cell.attack.config, title=attack.title),
        defense=PluginUse(
            name=cell.defense.name, config=cell.defense.config, title=defense.title, track=defense.track,
            reconstruction=defense.reconstruction,
        ),
        tier=cell.tier.name, seed=cell.seed, status="failed" if failure else "done", failure=failure,
        asr=found.asr if found else None, zero_shot=found.zero_shot if found else {},
        linear_probe=found.linear_probe if found else {}, retrieval=found.retrieval if found else None,
        poison=seen.poison, cost=cost, headline=seen.headline, config=cell.model_dump(mode="json"),
        history=seen.training.history, log=journal.notes, provenance=provenance(cell, seen.data, seen.poisoned),
    )  # fmt: skip
