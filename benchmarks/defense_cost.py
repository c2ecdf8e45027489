"""What a training defence costs: ``python benchmarks/defense_cost.py [--tier clipart] [--device cuda] [--json]``.

Every pre-training defence runs through all epochs of the tier's recipe at its defaults there, on few steps per epoch, so that
passes made only in some epochs, and what is trained beforehand, count with their share. Its time per batch of pairs and its
peak memory are divided by those of plain CLIP with as many views, augmented alike. Every measurement is a process of its own,
since peaks never fall.
The pairs are the embedded ones at the tier's image side, whatever the tier's own data: costs do not depend on what they show.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from poisonbench.defense import Batch, Defense, DefenseCard, ImageAugment, Objective, TextAugment

if TYPE_CHECKING:
    from torch import Tensor

    from poisonbench.lab import Lab
    from poisonbench.pairs import Pairs
    from poisonbench.tier import Tier
    from poisonbench.towers import Towers

EMBEDDED_SIDE = 32
"""Pixels per side of the embedded pictures, enlarged for tiers with larger ones."""


class Look(NamedTuple):
    """What an objective is shown of a row: how many views, and augmented how."""

    views: int
    images: ImageAugment
    texts: TextAugment


@dataclass(frozen=True)
class Job:
    """One measurement: of a registered defence, or of plain CLIP that looks at rows in the same way.

    Attributes:
        subject: what is measured.
        tier: gives model, recipe and the defence's settings.
        device: "cpu" or "cuda".
        steps: of an epoch, in batches of the recipe.
        repeats: runs, of which the median counts.
    """

    subject: str | Look
    tier: str
    device: str
    steps: int
    repeats: int


@dataclass(frozen=True)
class Cost:
    """What was measured.

    Attributes:
        name: of the defence.
        look: of its objective.
        batch_ms: milliseconds of the whole run per batch of pairs and epoch, all passes together.
        ahead_ms: of these, what came before the loop.
        peak_mb: peak memory: of the process on a CPU (the interpreter included), allocated on a GPU.
    """

    name: str
    look: Look
    batch_ms: float
    ahead_ms: float
    peak_mb: float


class Plain(Objective):
    """CLIP's loss on every view."""

    def __init__(self, look: Look) -> None:
        self.views, self.images, self.texts = look

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        """The mean of CLIP's losses over the views."""
        views = zip(batch.images, batch.tokens, strict=True)
        losses = [super(Plain, self).loss(replace(batch, images=(i,), tokens=(t,)), towers) for i, t in views]
        total: Tensor = sum(losses[1:], losses[0])
        return total / len(losses)


class PlainClip(Defense):
    """Plain CLIP that looks at rows as a defence does."""

    card = DefenseCard(title="plain CLIP", paper="-", year=2021, track="none")

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look

    def objective(self, lab: Lab) -> Objective:
        """CLIP's loss on every view."""
        return Plain(self._look)


@click.command()
@click.option(
    "--tier", default="clipart", show_default=True, help="Model, recipe and the defences' settings."
)
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--steps", default=32, show_default=True, type=click.IntRange(1), help="Batches per epoch.")
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(1), help="Runs; the median counts."
)
@click.option("--defense", "names", multiple=True, help="Only this one; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def main(tier: str, device: str, steps: int, repeats: int, names: tuple[str, ...], as_json: bool) -> None:
    """Time and memory of every training defence over plain CLIP with the same number of views."""
    jobs = [Job(name, tier, device, steps, repeats) for name in names or _training_defenses()]
    defended = [_apart(job) for job in jobs]
    plain = {look: _apart(replace(jobs[0], subject=look)) for look in sorted({one.look for one in defended})}
    rows = [_row(one, plain[one.look]) for one in [*plain.values(), *defended]]
    settings = {"tier": tier, "device": device, "steps": steps, "repeats": repeats}
    click.echo(json.dumps({**settings, "costs": rows}, indent=2) if as_json else _table(rows))


def measure(job: Job) -> Cost:
    """Do the job in this process; a first run warms up and is not counted."""
    from poisonbench.conformance.defense_rehearsal import with_undefended
    from poisonbench.device import peak_memory, prepare
    from poisonbench.tier import load_tier

    tier = load_tier(job.tier)
    prepare(job.device, tier.recipe.threads)
    defense = _defense(job.subject, tier)
    lab = with_undefended(replace(_lab(tier, job), card=defense.card))
    looks, whole, ahead = zip(*(_run(defense, lab, job.steps) for _ in range(job.repeats + 1)), strict=True)
    name = job.subject if isinstance(job.subject, str) else "plain CLIP"
    return Cost(name, looks[0], median(whole[1:]), median(ahead[1:]), peak_memory(job.device) / 2**20)


def _run(defense: Defense, lab: Lab, steps: int) -> tuple[Look, float, float]:
    """Train once; gives how the objective looks at rows, milliseconds per batch of pairs, and those of what came beforehand."""
    from poisonbench.training import fit

    started = time.perf_counter()
    objective = defense.objective(lab)
    ahead = time.perf_counter() - started
    towers, loader, recipe = lab.fresh("model"), lab.loader(), lab.recipe
    look = Look(objective.views, objective.images or recipe.images, objective.texts or recipe.texts)
    loader.tokens(
        np.arange(1), look.texts, epoch=1
    )  # the table of all captions is made once per run, however long
    started = time.perf_counter()
    fit(towers, objective, loader, recipe, lab.progress)
    each = 1000 / (recipe.epochs * steps)
    return look, each * (ahead + time.perf_counter() - started), each * ahead


def _defense(subject: str | Look, tier: Tier) -> Defense:
    from poisonbench.registry import defenses

    if isinstance(subject, Look):
        return PlainClip(subject)
    return defenses().get(subject)(tier.defenses.get(subject, {}))


def _lab(tier: Tier, job: Job) -> Lab:
    from poisonbench.lab import Lab
    from poisonbench.precision import precision_on
    from poisonbench.progress import Progress
    from poisonbench.randomness import Key, stable_seed
    from poisonbench.sources.opening import open_data
    from poisonbench.sources.vocabulary import tokenizer_for
    from poisonbench.tier import DataSpec
    from poisonbench.towers import build_towers, image_side

    data = open_data(DataSpec(limit=job.steps * tier.recipe.batch), EMBEDDED_SIDE)
    tokenizer = tokenizer_for(data, tier.model)
    bf16 = precision_on(job.device, tier.recipe.precision) == "bf16"

    def fresh(key: Key) -> Towers:
        seed = stable_seed(job.tier, key)
        return build_towers(tier.model.name, tokenizer, seed=seed, device=job.device, bf16=bf16)

    return Lab(
        pairs=_at_side(data.train, image_side(tier.model.name)), validation=data.validation, recipe=tier.recipe,
        tokenizer=tokenizer, synonyms=data.synonyms, seed=0, device=job.device, card=PlainClip.card, fresh=fresh,
        progress=Progress(),
    )  # fmt: skip


def _at_side(pairs: Pairs, side: int) -> Pairs:
    from torch.nn.functional import interpolate

    from poisonbench.pairs import ArrayImages, Pairs

    pixels = interpolate(pairs.images.fetch(np.arange(len(pairs))), side)
    return Pairs(ArrayImages(pixels), pairs.captions, pairs.fingerprint)


def _training_defenses() -> list[str]:
    from poisonbench.registry import defenses

    return [name for name in defenses().names() if defenses().get(name).card.track == "pre-training"]


def _apart(job: Job) -> Cost:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
        return worker.submit(measure, job).result()


def _row(cost: Cost, plain: Cost) -> dict[str, Any]:
    over = {
        "time_over_plain": cost.batch_ms / plain.batch_ms,
        "ahead_over_plain": cost.ahead_ms / plain.batch_ms,
        "memory_over_plain": cost.peak_mb / plain.peak_mb,
    }
    return asdict(cost) | {"look": cost.look._asdict()} | over


def _table(rows: Sequence[dict[str, Any]]) -> str:
    head = "| defence | views | images | ms per batch | over plain CLIP | of it before the loop | peak MB | over plain CLIP |"
    lines = [head, "|" + "---|" * head.count(" |")]
    for row in rows:
        look = "{views} | {images}".format(**row["look"])
        over = [f"{row[name]:.2f}x" for name in ("time_over_plain", "ahead_over_plain", "memory_over_plain")]
        time_ = f"{row['batch_ms']:.1f} | {over[0]} | {over[1]}"
        lines.append(f"| {row['name']} | {look} | {time_} | {row['peak_mb']:.0f} | {over[2]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
