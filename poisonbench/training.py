"""The only training loop: it makes the passes that an objective plans, with the tier's recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from poisonbench.defense import Batch, Objective, Pass
from poisonbench.loader import Loader
from poisonbench.pairs import Rows
from poisonbench.progress import Progress
from poisonbench.randomness import torch_rng
from poisonbench.tier import Recipe
from poisonbench.towers import MAX_SCALE, Towers


class Diverged(Exception):
    """A loss was not finite; ``step`` says where."""

    def __init__(self, step: int, epoch: int) -> None:
        super().__init__(f"the loss is not finite at step {step} (epoch {epoch})")
        self.step = step


@dataclass
class Training:
    """What a run of the loop leaves besides the weights.

    Attributes:
        seconds: wall-clock time of the loop.
        pairs: pairs that were given to losses, every pass counted.
        history: per epoch, mean loss and what the objective reports.
    """

    seconds: float = 0.0
    pairs: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


EpochEnd = Callable[[int, Objective], dict[str, float]]


def fit(
    towers: Towers,
    objective: Objective,
    loader: Loader,
    recipe: Recipe,
    progress: Progress,
    on_epoch: EpochEnd | None = None,
) -> Training:
    """Train ``towers`` in place.

    Args:
        towers: the model.
        objective: plans the passes and gives the losses.
        loader: draws the batches.
        recipe: epochs, optimiser, precision, default augmentation.
        progress: told about epochs and pairs.
        on_epoch: called after every epoch; what it returns joins the history.

    Raises:
        Diverged: when a loss is not finite.
    """
    done = Training()
    optimizer = adamw(towers, recipe)
    started, step = time.perf_counter(), 0
    for epoch in range(1, recipe.epochs + 1):
        losses: list[float] = []
        passes = [
            (stage, one, _steps(loader, one, epoch, stage)) for stage, one in enumerate(objective.plan(epoch))
        ]
        total = sum(len(steps) for _, _, steps in passes)
        progress.phase(
            f"training, epoch {epoch} of {recipe.epochs}",
            sum(len(rows) for _, _, steps in passes for rows in steps),
        )
        finished = 0
        for at, (stage, one, rows) in enumerate(
            (stage, one, rows) for stage, one, steps in passes for rows in steps
        ):
            share = (epoch - 1 + at / max(1, total)) / recipe.epochs
            batch = make_batch(loader, objective, recipe, rows, epoch, stage, step, share)
            losses.append(
                _step(
                    towers, optimizer, one, batch, recipe.lr * one.lr_scale * schedule(share, recipe.warmup)
                )
            )
            if not math.isfinite(losses[-1]):
                raise Diverged(step, epoch)
            step, finished = step + 1, finished + len(rows)
            progress.advance(finished)
        done.pairs += finished
        report = {
            "epoch": float(epoch),
            "loss": float(np.mean(losses)) if losses else 0.0,
            **objective.finish(epoch),
        }
        done.history.append(report | (on_epoch(epoch, objective) if on_epoch else {}))
        progress.note(", ".join(f"{key} {value:.4g}" for key, value in done.history[-1].items()))
    done.seconds = time.perf_counter() - started
    return done


def schedule(share: float, warmup: float) -> float:
    """Learning-rate factor at ``share`` of the run: a linear rise over ``warmup``, then a cosine to zero."""
    if share < warmup:
        return (share + 1e-3) / (warmup + 1e-3)
    return (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))) / 2


def adamw(towers: Towers, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays only parameters of two or more dimensions (no biases, norms or logit scale)."""
    decayed = [p for p in towers.parameters() if p.requires_grad and p.ndim >= 2]
    plain = [p for p in towers.parameters() if p.requires_grad and p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, eps=1e-8, fused=True)


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


def state_of(towers: Towers) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors by name, contiguous and on the CPU, for a safetensors file."""
    for name, value in towers.model.state_dict().items():
        yield name, value.detach().cpu().contiguous()
