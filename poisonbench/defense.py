"""The contract of a defence: the moments at which it may act, and what it may see.

A defence overrides only what it needs; the runner owns data, seeds, loop, checkpoints and evaluation::

    class MyDefense(Defense):
        "One sentence: the idea (Author et al., Venue Year)."

        card = DefenseCard(title="My defence", paper="arXiv:0000.00000", year=2026, track="pre-training")

        class Config(DefenseConfig):
            strength: float = Field(0.5, ge=0, le=1)

        def objective(self, lab): ...  # in-training: what the loop minimises
        def curate(self, pairs, lab): ...  # before training: drop or re-caption rows
        def repair(self, lab): ...  # after training: candidates that train on clean data
        def screen(self, towers, lab): ...  # at inference: a score per input

A defence never sees the poison manifest, the attack's name or the test sets. Whatever else it needs (clean pairs,
class names, the undefended model) it must declare in its card's ``sees``; the lab refuses what was not declared.

The track says which moments there are: "repair" and "screening" start from the undefended model, so nothing is curated or trained
before them. A run may be killed and taken up by another process, so what a moment needs of an earlier one is in the objective's
``state_dict`` or made again, and not kept on the instance.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poisonbench.errors import UserError
from poisonbench.losses import clip_loss
from poisonbench.pairs import Chosen, Pairs, Rows
from poisonbench.settings import Presets, Settings, validated

if TYPE_CHECKING:
    from poisonbench.lab import Lab
    from poisonbench.tier import Recipe
    from poisonbench.towers import Towers

Track = Literal["none", "pre-training", "filter", "repair", "screening"]
Sight = Literal["clean", "classes", "undefended"]
Split = Literal["clean", "validation"]
ImageAugment = Literal["none", "flip", "mild", "light", "roclip", "auto"]
TextAugment = Literal["none", "eda"]


class DefenseCard(Settings):
    """What a reader must know of a defence before its numbers.

    Attributes:
        title: the name in tables.
        paper: where it was published ("arXiv:..."), or "-" for a baseline.
        year: year of publication.
        track: the moment at which it acts; numbers of different tracks are not put in one ranking.
        sees: what it is given besides the poisoned pairs and the validation split.
        reconstruction: what of it is our inference rather than published, or empty.
    """

    title: str
    paper: str
    year: int
    track: Track
    sees: tuple[Sight, ...] = ()
    reconstruction: str = ""

    @property
    def acts_on_a_model(self) -> bool:
        """Whether it takes the undefended model as it is, instead of training one."""
        return self.track in ("repair", "screening")

    @property
    def needs_undefended(self) -> bool:
        """Whether the undefended model of the same attack and seed must be there first."""
        return self.acts_on_a_model or "undefended" in self.sees

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits beside the training pairs without which it can do nothing: a repair is chosen on the validation split."""
        clean: tuple[Split, ...] = ("clean",) if "clean" in self.sees else ()
        return (*clean, "validation") if self.track == "repair" else clean


class DefenseConfig(Settings):
    """Base of every defence's configuration; unknown fields are refused."""


@dataclass(frozen=True)
class Batch:
    """What a loss is given for one step.

    Attributes:
        epoch: counted from 1.
        step: counted from 0 over the whole run.
        progress: share of the run that is done, in [0, 1).
        rows: int64, (b,): the rows in the training pairs.
        images: one float tensor (b, 3, side, side) in [0, 1] per view.
        tokens: one int64 tensor (b, context) per text view.
        rng: a generator for this step alone (CPU).
    """

    epoch: int
    step: int
    progress: float
    rows: Tensor
    images: tuple[Tensor, ...]
    tokens: tuple[Tensor, ...]
    rng: torch.Generator


Loss = Callable[[Batch, "Towers"], Tensor]


@dataclass(frozen=True)
class Pass:
    """One pass of the loop over some rows.

    Attributes:
        loss: what is minimised: a scalar from a batch and the towers.
        rows: the rows to visit in an order that the loop shuffles, or None for all.
        lr_scale: multiplies the recipe's learning rate.
        drop_last: whether an incomplete last batch is left out (contrastive losses want full batches).
        train: False makes a scoring pass: eval mode, no gradient, no step.
    """

    loss: Loss
    rows: Rows | None = None
    lr_scale: float = 1.0
    drop_last: bool = True
    train: bool = True


@dataclass(frozen=True)
class Assignment:
    """Which caption every row was trained on in an epoch, for measuring how many poisons a defence neutralised.

    Attributes:
        partner: int64, (n,): the row whose caption was used, the row itself for its own, -1 where the row was left out.
    """

    partner: npt.NDArray[np.int64]


class Objective:
    """What the training loop minimises, epoch by epoch; the default is plain CLIP.

    A run may be killed at any step and goes on in a new process with a new objective. For that, ``state_dict`` holds all
    that the steps have changed, and ``plan`` is a function of the epoch and of that state as it was when the epoch
    began. An epoch that was left midway is taken up like this: the state of its beginning is loaded, ``plan`` gives the same
    passes again, the state of the last step is loaded, and the steps that were made are skipped.

    Attributes:
        views: image and text views per row and step.
        images: image augmentation, or None for the recipe's.
        texts: text augmentation, or None for the recipe's.
    """

    views: int = 1
    images: ImageAugment | None = None
    texts: TextAugment | None = None

    def plan(self, epoch: int) -> Sequence[Pass]:
        """The passes of ``epoch`` (counted from 1), in order; called when the epoch begins, or is taken up again."""
        return [Pass(self.loss)]

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        """CLIP's symmetric contrastive loss on the first view."""
        image, text = towers.image(batch.images[0]), towers.text(batch.tokens[0])
        return clip_loss(image.embedding, text.embedding, towers.scale)

    def finish(self, epoch: int) -> Mapping[str, float]:
        """Called after the last pass of ``epoch``; returns what should be logged."""
        return {}

    def assignment(self) -> Assignment | None:
        """The captions used in the epoch that just ended, or None when every row kept its own."""
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed run needs beyond the model and optimiser, after any step.

        Pools, banks, splits, counts for ``finish``, partners for ``assignment``; no generators, since those that the lab
        and the batch give are keyed and drawn anew.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Be as if the steps that gave ``state`` had been made here; nothing of an earlier state is left."""


@dataclass(frozen=True)
class Curation:
    """What a defence decided about the training pairs before training.

    Attributes:
        keep: bool, (n,): which rows are trained on; None keeps all.
        captions: new captions per row, for rows that were re-captioned.
        scores: float, (n,): larger is more suspicious; kept for detection metrics.

    Raises:
        ValueError: for scores that rank nothing; now, and not when the model has been trained.
    """

    keep: npt.NDArray[np.bool_] | None = None
    captions: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    scores: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.scores is not None and not np.isfinite(self.scores).all():
            bad = int((~np.isfinite(self.scores)).sum())
            raise ValueError(f"{bad} of the defence's {len(self.scores)} scores are not finite numbers")

    def applied(self, pairs: Pairs) -> Pairs:
        """What is left of ``pairs`` to train on: the kept rows in their order, with their new captions."""
        captions = [self.captions.get(row, options) for row, options in enumerate(pairs.captions)]
        if self.keep is None:
            return Pairs(pairs.images, captions, pairs.fingerprint)
        rows = np.flatnonzero(self.keep)
        return Pairs(Chosen(pairs.images, rows), [captions[row] for row in rows], pairs.fingerprint)


def _as_it_is(towers: Towers) -> None:
    """Begin with the undefended model itself."""


@dataclass(frozen=True)
class Candidate:
    """One way to repair the undefended model: what to minimise on the clean pairs, and with which recipe.

    Attributes:
        objective: what the loop minimises; its rows are those of the clean split.
        recipe: epochs, batch, learning rate, warm-up and decay, made from ``lab.recipe``.
        begin: given the candidate's own copy of the undefended model before the first step, to keep a reference of it
            or to change its weights. A resumed run calls it again before it loads its checkpoint.
    """

    objective: Objective
    recipe: Recipe
    begin: Callable[[Towers], None] = _as_it_is


@dataclass(frozen=True)
class Screen:
    """A detector for inputs at inference.

    Attributes:
        score: images (uint8, (b, 3, side, side)) to scores (b,); larger is more suspicious.
        threshold: scores above it are flagged; set from clean images.
    """

    score: Callable[[Tensor], npt.NDArray[np.float64]]
    threshold: float


class Defense(ABC):
    """Base class of every defence; see the module's text for the whole manual.

    Attributes:
        name: set by the registry from the entry point's name.
        card: what the defence is and may see.
        Config: its configuration, with a default for every field.
        presets: named variants, each the fields of ``Config`` that it changes.
    """

    name: ClassVar[str] = ""
    card: ClassVar[DefenseCard]
    presets: ClassVar[Presets] = {}
    Config: ClassVar[type[DefenseConfig]] = DefenseConfig

    def __init__(self, config: Any = None) -> None:
        """``config`` is an instance of ``Config``, a mapping of fields, or None for the defaults."""
        self.config: Any = (
            config
            if isinstance(config, self.Config)
            else validated(self.Config, config or {}, f"defense '{self.name}'")
        )

    def curate(self, pairs: Pairs, lab: Lab) -> Curation:
        """Before training: which rows to keep, which to re-caption, and how suspicious each is."""
        return Curation()

    def objective(self, lab: Lab) -> Objective:
        """In training: what the loop minimises."""
        return Objective()

    def repair(self, lab: Lab) -> Mapping[str, Candidate]:
        """After training: named candidates for the same loop on the clean split, weakest to strongest; empty for none.

        Each starts from the undefended model of the same attack and seed, weights and optimiser moments, and needs "clean"
        in the card's ``sees``. The runner keeps the strongest whose validation accuracy is at most two points below the
        undefended model's or, where there is none, the most accurate; all of them go into the record.
        """
        return {}

    def screen(self, towers: Towers, lab: Lab) -> Screen | None:
        """At inference: a detector of attacked inputs, or None."""
        return None


def check_track(plugin: type[Defense]) -> None:
    """Check that a defence has what its track asks for, and nothing that would not be asked for.

    Raises:
        UserError: names the method.
    """
    track, name = plugin.card.track, plugin.__name__
    if not plugin.card.acts_on_a_model:
        return
    for method in ("curate", "objective"):
        if getattr(plugin, method) is not getattr(Defense, method):
            raise UserError(
                f"{name} defines {method}, but its track is '{track}', which takes the undefended model as it is; "
                "leave it out, or choose the track pre-training or filter"
            )
    wanted = "repair" if track == "repair" else "screen"
    if getattr(plugin, wanted) is getattr(Defense, wanted):
        raise UserError(f"{name} has the track '{track}' and does not define {wanted}")
