"""The only training loop: it makes the passes that an objective plans, with the tier's recipe."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from poisonbench.defense import Batch, Objective, Pass
from poisonbench.loader import Loader
from poisonbench.optimizer import adamw, load_optimizer_state
from poisonbench.pairs import Rows
from poisonbench.progress import Progress
from poisonbench.randomness import stable_seed, torch_rng
from poisonbench.resumption import Keeper, Run, Training
from poisonbench.slots import Slot
from poisonbench.tier import Recipe
from poisonbench.towers import MAX_SCALE, Towers

__all__ = ["Diverged", "EpochEnd", "Training", "adamw", "fit", "make_batch", "schedule", "state_of"]

EpochEnd = Callable[[int, Objective], dict[str, float]]


class Diverged(Exception):
    """A loss was not finite; ``step`` says where."""

    def __init__(self, step: int, epoch: int) -> None:
        super().__init__(f"the loss is not finite at step {step} (epoch {epoch})")
        self.step = step


def fit(
    towers: Towers,
    objective: Objective,
    loader: Loader,
    recipe: Recipe,
    progress: Progress,
    on_epoch: EpochEnd | None = None,
    checkpoint: Slot | None = None,
    optimizer_state: Mapping[str, Tensor] | None = None,
    called: str = "training",
) -> Training:
    """Train ``towers`` in place.

    Args:
        towers: the model.
        objective: plans the passes and gives the losses.
        loader: draws the batches.
        recipe: epochs, optimiser, precision, default augmentation.
        progress: told about epochs and pairs.
        on_epoch: called after every epoch; what it returns joins the history. A resumed run calls it once more for the
            last finished epoch, so that whoever keeps an account of the epochs has it again.
        checkpoint: where the run is kept and taken up again, or None to keep nothing.
        optimizer_state: moments to start from (``Training.optimizer_state`` of an earlier run), or None for none.
        called: under which name the progress is shown; a cell may hold several trainings.

    Raises:
        Diverged: when a loss is not finite. Any other error of a step says in its ``step`` where it came up.
    """
    run = Run(towers, objective, adamw(towers, recipe), called)
    if optimizer_state:
        load_optimizer_state(towers, run.optimizer, optimizer_state)
    keeper = Keeper(run, checkpoint, _about(objective, loader, recipe))
    keeper.resume(progress)
    if on_epoch and run.epoch > 1:
        on_epoch(run.epoch - 1, objective)
    with _generator_apart(towers.device):
        while run.epoch <= recipe.epochs:
            report = _epoch(run, loader, recipe, progress, keeper)
            run.close(report | (on_epoch(run.epoch, objective) if on_epoch else {}))
            progress.note(", ".join(f"{key} {value:.4g}" for key, value in run.done.history[-1].items()))
            keeper.keep()
    return run.finished()


def _epoch(run: Run, loader: Loader, recipe: Recipe, progress: Progress, keeper: Keeper) -> dict[str, float]:
    """Make the epoch's steps from where the run is; returns what is to be said of the epoch."""
    steps = [
        (stage, one, rows)
        for stage, one in enumerate(run.passes(kept=keeper.keeps))
        for rows in _steps(loader, one, run.epoch, stage)
    ]
    ends = np.cumsum([len(rows) for _, _, rows in steps], dtype=np.int64).tolist()
    progress.phase(f"{run.called}, epoch {run.epoch} of {recipe.epochs}", ends[-1] if ends else 0)
    for stage, one, rows in steps[run.at :]:
        share = (run.epoch - 1 + run.at / len(steps)) / recipe.epochs
        rate = recipe.lr * one.lr_scale * schedule(share, recipe.warmup)
        with _located(run.step):
            batch = make_batch(loader, run.objective, recipe, rows, run.epoch, stage, run.step, share)
            torch.manual_seed(stable_seed(loader.seed, "global", run.step))  # for dropout inside models
            loss = _step(run.towers, run.optimizer, one, batch, rate)
        if not math.isfinite(loss):
            raise Diverged(run.step, run.epoch)
        run.advance(loss, len(rows))
        progress.advance(ends[run.at - 1])
        keeper.keep_if_due()
    mean = float(np.mean(run.losses)) if run.losses else 0.0
    return {"epoch": float(run.epoch), "loss": mean, **run.objective.finish(run.epoch)}


def schedule(share: float, warmup: float) -> float:
    """Learning-rate factor at ``share`` of the run: a linear rise over ``warmup``, then a cosine to zero."""
    if share < warmup:
        return (share + 1e-3) / (warmup + 1e-3)
    return (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2


def make_batch(
    loader: Loader,
    objective: Objective,
    recipe: Recipe,
    rows: Rows,
    epoch: int,
    stage: int,
    step: int,
    share: float,
) -> Batch:
    """The augmented views of ``rows``; every draw is keyed by epoch, pass, step and view."""
    images, texts = objective.images or recipe.images, objective.texts or recipe.texts
    return Batch(
        epoch=epoch, step=step, progress=share, rows=torch.from_numpy(rows),
        images=tuple(loader.images(rows, images, (epoch, stage, step, view)) for view in range(objective.views)),
        tokens=tuple(loader.tokens(rows, texts, epoch, view) for view in range(objective.views)),
        rng=torch_rng(loader.seed, "loss", step),
    )  # fmt: skip


def _steps(loader: Loader, one: Pass, epoch: int, stage: int) -> list[Rows]:
    rows = np.arange(len(loader.pairs)) if one.rows is None else one.rows
    return loader.order(rows, epoch, stage, one.drop_last) if len(rows) else []


def _step(towers: Towers, optimizer: torch.optim.Optimizer, one: Pass, batch: Batch, lr: float) -> float:
    if not one.train:
        towers.eval()
        with torch.no_grad():
            return float(one.loss(batch, towers))
    towers.train()
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = one.loss(batch, towers)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        towers.model.logit_scale.clamp_(0, math.log(MAX_SCALE))
    return float(loss.detach())


@contextmanager
def _located(step: int) -> Iterator[None]:
    """Errors say at which step they came up."""
    try:
        yield
    except Exception as error:
        vars(error).setdefault("step", step)
        raise


@contextmanager
def _generator_apart(device: torch.device) -> Iterator[None]:
    """Leave the caller's global torch generator as it was."""
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        yield


def _about(objective: Objective, loader: Loader, recipe: Recipe) -> str:
    """What is trained on what and how, so that a checkpoint of other work is not taken for this one's."""
    words = (type(objective).__name__, loader.pairs.fingerprint, len(loader.pairs), recipe.model_dump_json())
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def state_of(towers: Towers) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors by name, contiguous and on the CPU, for a safetensors file."""
    for name, value in towers.model.state_dict().items():
        yield name, value.detach().cpu().contiguous()
