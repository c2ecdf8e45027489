"""SAFECLIP (Yang, Gao and Mirzasoleiman, ICML 2024, arXiv 2310.05862): train across modalities on safe pairs only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from poisonbench.defense import (
    Assignment,
    Batch,
    Defense,
    DefenseCard,
    DefenseConfig,
    ImageAugment,
    Objective,
    Pass,
    TextAugment,
)
from poisonbench.defenses.safeclip.phases import Phases
from poisonbench.defenses.safeclip.rates import Kind, OfficialRates, PhaseRates, Rates, step_by_step
from poisonbench.defenses.safeclip.split import Flags, Ranking, Split
from poisonbench.lab import Lab
from poisonbench.losses import rows_cross_entropy
from poisonbench.pool import Bank
from poisonbench.towers import Towers

LEFT_OUT = -1


class SAFECLIP(Defense):
    """Images and captions learn alone first; then only pairs that resemble each other are trained across modalities.

    Three phases: unimodal contrast with nearest neighbours; one slow epoch of CLIP; then, in every epoch, a mixture
    of two Gaussians over the cosines of all pairs divides them, the risky ones keep the unimodal loss, the safe ones
    get CLIP's, and the safe set grows. Losses, banks and threshold are those of the released code.
    """

    card = DefenseCard(
        title="SAFECLIP",
        paper="arXiv:2310.05862",
        year=2024,
        track="pre-training",
        reconstruction="Phases and growth are shares of the run instead of epochs; every phase's learning rate ends at zero, "
        "where the released code's cosines run past their ends (official_lr); safe pairs are ranked by similarity, where the "
        "released code takes the mixture's posterior (ranking=posterior).",
    )

    class Config(DefenseConfig):
        """Phases, division, banks and augmentation.

        Attributes:
            unimodal: share of the run's epochs that warm up without any pairing (5 of 32 as released).
            slow: share of the epochs that train all pairs across modalities slowly (1 of 32).
            slow_lr: learning rate of the slow epochs as a share of the recipe's (0.01 on CC1M, 0.1 on COCO and Visual Genome).
            threshold: posterior of the similar component from which a pair is safe at the first division.
            growth: what the safe share gains over the run (0.01 of the pairs in each of 25 epochs as released).
            cap: largest safe share.
            ranking: what orders the pairs: their similarity, or the posterior, which is not monotone in it.
            scoring: take similarities of augmented views, as released, or of plain pairs.
            bank: images and captions in either nearest-neighbour bank; about 2% of the data.
            official_lr: the released code's learning rates, cosines that rise again included.
            official_warmup: steps of their linear rise.
            images: image augmentation.
            texts: caption augmentation.
        """

        unimodal: float = Field(5 / 32, ge=0, lt=1)
        slow: float = Field(1 / 32, gt=0, lt=1)
        slow_lr: float = Field(0.01, gt=0, le=1)
        threshold: float = Field(0.9, gt=0, lt=1)
        growth: float = Field(0.25, ge=0, le=1)
        cap: float = Field(0.85, gt=0, le=1)
        ranking: Ranking = "similarity"
        scoring: Literal["augmented", "plain"] = "augmented"
        bank: int = Field(21845, ge=1)
        official_lr: bool = False
        official_warmup: int = Field(10_000, ge=1)
        images: ImageAugment = "roclip"
        texts: TextAugment = "eda"

    def objective(self, lab: Lab) -> Objective:
        """The three phases."""
        return SafeTraining(self.config, lab)


class SafeTraining(Objective):
    """SAFECLIP's training; see ``SAFECLIP``. What an epoch does follows from its number and the last division alone."""

    views = 2

    def __init__(self, config: SAFECLIP.Config, lab: Lab) -> None:
        self.config, self.images, self.texts = config, config.images, config.texts
        self.phases = Phases.of(config.unimodal, config.slow, lab.recipe.epochs)
        growth = config.growth / max(1, self.phases.divided - 1)
        self.split = Split(len(lab.pairs), config.threshold, growth, config.cap, config.ranking)
        self.banks = {side: Bank(config.bank, lab.rng("bank", side)) for side in ("image", "text")}
        self._lab, self._loader = lab, lab.loader()
        self._partner = np.arange(len(lab.pairs))

    def plan(self, epoch: int) -> Sequence[Pass]:
        """Risky rows alone, safe rows across modalities, and a look at all similarities if the next epoch is divided."""
        safe, everyone = self._safe(epoch), np.arange(len(self._partner))
        self._partner = np.where(safe, everyone, LEFT_OUT)
        passes: dict[Kind, Pass] = {}
        if not safe.all():
            passes["unimodal"] = Pass(self.unimodal, rows=everyone[~safe])
        if safe.any():
            passes["crossed"] = Pass(self.crossed, rows=everyone[safe])
        if self.phases.scored(epoch):
            passes["score"] = Pass(self.score, drop_last=False, train=False)
        return step_by_step(passes, self._rates, epoch, self._lab)

    def unimodal(self, batch: Batch, towers: Towers) -> Tensor:
        """Each second view against the bank's nearest neighbour of the first view, within images and within captions.

        The neighbours of the other rows are the negatives; only second views carry a gradient.
        """
        with torch.no_grad():
            looked_up = towers.image(batch.images[0]).embedding, towers.text(batch.tokens[0]).embedding
        image, text = towers.image(batch.images[1]).embedding, towers.text(batch.tokens[1]).embedding
        losses = [
            rows_cross_entropy(towers.scale * view @ self._neighbours(bank, first, batch.rows).T)
            for bank, first, view in zip(self.banks.values(), looked_up, (image, text), strict=True)
        ]
        return (losses[0] + losses[1]) / 2

    def crossed(self, batch: Batch, towers: Towers) -> Tensor:
        """CLIP's loss on crossed views: first images with second captions, first captions with second images."""
        first, second = (
            (towers.image(images).embedding, towers.text(tokens).embedding)
            for images, tokens in zip(batch.images, batch.tokens, strict=True)
        )
        to_text = rows_cross_entropy(towers.scale * first[0] @ second[1].T)
        to_image = rows_cross_entropy(towers.scale * first[1] @ second[0].T)
        return (to_text + to_image) / 2

    def score(self, batch: Batch, towers: Towers) -> Tensor:
        """Note the pairs' cosines; returns their mean distance."""
        images, tokens = batch.images[0], batch.tokens[0]
        if self.config.scoring == "plain":
            rows = batch.rows.numpy()
            images = self._lab.pairs.images.fetch(rows)
            tokens = self._loader.tokens(rows, "none", batch.epoch)
        cosine = (towers.image(images).embedding * towers.text(tokens).embedding).sum(dim=1)
        self.split.note(batch.rows, cosine)
        return 1 - cosine.mean()

    def finish(self, epoch: int) -> dict[str, float]:
        """The share of pairs trained across modalities, and of the division for the next epoch what is worth knowing."""
        report = {"safe": float(np.mean(self._partner != LEFT_OUT))}
        return report | (self.split.renew() if self.phases.scored(epoch) else {})

    def assignment(self) -> Assignment:
        """Safe rows keep their own captions; -1 where only the unimodal loss saw a row."""
        return Assignment(self._partner.copy())

    def state_dict(self) -> dict[str, Tensor]:
        """Division, banks, and whose caption every row has in the present epoch."""
        parts = {name: one.state_dict() for name, one in self._parts.items()}
        state = {f"{part}.{name}": value for part, found in parts.items() for name, value in found.items()}
        return state | {"partner": torch.from_numpy(self._partner.copy())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self._partner = state["partner"].numpy().copy()
        for part, one in self._parts.items():
            prefix = f"{part}."
            found = {
                name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
            }
            one.load_state_dict(found)

    @property
    def _parts(self) -> dict[str, Split | Bank]:
        return {"split": self.split, **self.banks}

    def _safe(self, epoch: int) -> Flags:
        """Which rows ``epoch`` trains across modalities: bool (n,)."""
        if self.phases.at(epoch) == "divided":
            return self.split.safe.numpy()
        return np.full(len(self._partner), self.phases.at(epoch) == "slow")

    @property
    def _rates(self) -> Rates:
        config, split, recipe = self.config, self.split, self._lab.recipe
        if config.official_lr:
            batches = len(self._partner) // recipe.batch
            return OfficialRates(
                self.phases, config.official_warmup, batches, config.slow_lr, split.first, split.growth
            )
        shares = tuple(split.share(number) for number in range(self.phases.divided))
        return PhaseRates(self.phases, recipe.warmup, config.slow_lr, shares)

    def _neighbours(self, bank: Bank, query: Tensor, rows: Tensor) -> Tensor:
        """The bank's nearest vectors to ``query``, both (b, d); the query enters the bank afterwards."""
        found, _ = bank.nearest(query)
        bank.push(embedding=query, row=rows.to(query.device))
        return found
