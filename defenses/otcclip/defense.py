"""OTCCLIP (arXiv 2509.18717): re-assign captions by optimal transport between fine-grained features, and align them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from poisonbench.defense import Assignment, Batch, Defense, DefenseCard, Objective, Pass
from poisonbench.defenses.otcclip.captions import Captions
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.copies import pictures
from poisonbench.defenses.otcclip.judge import Judge, Verdict
from poisonbench.defenses.otcclip.losses import aligned, weighted_clip
from poisonbench.defenses.otcclip.parts import Part, kept, restore
from poisonbench.defenses.otcclip.regions import even
from poisonbench.defenses.otcclip.rings import transport_ring
from poisonbench.defenses.otcclip.scout import suspicion
from poisonbench.defenses.otcclip.transplant import grid_side, transplanted
from poisonbench.defenses.otcclip.transport import Transport
from poisonbench.lab import Lab
from poisonbench.settings import Presets
from poisonbench.towers import Features, Towers

LEFT_OUT = -1


class OTCCLIP(Defense):
    """Images get a new caption from a pool, the nearest by optimal transport of visual patches to text tokens.

    Established (the paper's abstract): captions are re-assigned by an OT distance between fine-grained feature
    sets, global and fine-grained features are combined, OT objectives align across and within modalities. Everything else,
    the separation of suspicious pairs above all, is our reconstruction; see README.md beside this file. ``every_image`` gives
    all images a new caption in every second epoch, the form nearest to the abstract; ``positive`` pulls pairs together by OT
    without ranking them against others.
    """

    card = DefenseCard(
        title="OTCCLIP-re",
        paper="arXiv:2509.18717",
        year=2025,
        track="pre-training",
        sees=("undefended",),
        reconstruction="Layers, marginals, entropy, pool, period, the scout, separation, recurring regions and weights are ours; "
        "the paper's abstract fixes the OT re-assignment and the inter- and intra-modal OT objectives only.",
    )

    presets: ClassVar[Presets] = {
        "every_image": {
            "reassign": "all", "every": 2, "weight": 1, "copies": "many", "outlying": 0, "regions": 1,
            "recurring": 0, "views": 1, "inter": 1, "intra": 1, "shortlist": 32,
        },
        "positive": {"form": "positive"},
    }  # fmt: skip

    Config = OTCCLIPConfig

    def objective(self, lab: Lab) -> Objective:
        """CLIP with re-assigned captions and OT objectives."""
        return Reassigning(self.config, lab)


class Reassigning(Objective):
    """OTCCLIP's training; see ``OTCCLIP``."""

    def __init__(self, config: OTCCLIPConfig, lab: Lab) -> None:
        self.config, self.images, self.texts = config, config.images, config.texts
        self.views = max(config.views, 2 if config.intra else 1)
        groups = pictures(lab.pairs.images)
        self._share = (
            1 / torch.bincount(groups)[groups] if config.copies == "one" else torch.ones(len(groups))
        )
        how = Transport(eps=config.eps, backend=config.backend)
        self.judge = Judge(config, lab.pairs.images, suspicion(lab, groups, config))
        self.captions = Captions(config.pool, config.beta, how, config.shortlist)
        self.partner = torch.arange(len(lab.pairs))
        self._sound = 0.0

    def plan(self, epoch: int) -> Sequence[Pass]:
        """One pass over all rows."""
        self.partner = torch.arange(len(self.partner))
        self._sound = 0.0
        self.captions.begin()
        return [Pass(self.loss)]

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        """Judge the pairs, give suspicious images a new caption, align what results."""
        image, own = towers.image(batch.images[0]), towers.text(batch.tokens[0])
        offsets = torch.randperm(len(batch.rows) - 1, generator=batch.rng)[: self.config.references] + 1
        shifts = [0, *offsets.tolist()]
        verdict = self._verdict(batch, towers, image, own, shifts)
        suspect = ~verdict.sound
        text, weights = self._partners(batch, towers, image, own, suspect)
        self._remember(batch, image, own, verdict.sound)
        views = [
            image,
            *(towers.image(self._hosting(view, batch, image, verdict)) for view in batch.images[1:]),
        ]
        near = shifts[: 1 + self.config.negatives]
        loss = self._across(views, text, near, weights.to(towers.device), batch.rows, towers)
        if self.config.intra:
            loss = loss + self.config.intra / 2 * self._within(views, own, batch, near, towers)
        return loss

    def _across(
        self,
        views: Sequence[Features],
        text: Features,
        near: list[int],
        weights: Tensor,
        rows: Tensor,
        towers: Towers,
    ) -> Tensor:
        """CLIP's loss, the mean over the views, and the OT objective of the first view with the captions given."""
        config, caption = self.config, self.partner[rows].to(weights.device)
        losses = [
            weighted_clip(view.embedding, text.embedding, towers.scale, weights, caption, config.bystanders)
            for view in views[: config.views]
        ]
        loss = torch.stack(losses).mean()
        if config.inter:
            loss = loss + config.inter * self._align(views[0], text, near, weights, caption, towers)
        return loss

    def _within(
        self, views: Sequence[Features], own: Features, batch: Batch, near: list[int], towers: Towers
    ) -> Tensor:
        """The OT objectives of two views of the images and of two of their own captions, summed."""
        pairs = ((views[0], views[1]), (own, towers.text(batch.tokens[1])))
        each, rows = torch.ones(len(batch.rows), device=towers.device), batch.rows.to(towers.device)
        return sum(
            (self._align(*pair, near, each, rows, towers) for pair in pairs),
            torch.zeros((), device=towers.device),
        )

    def assignment(self) -> Assignment:
        """Whose caption every image was given."""
        return Assignment(self.partner.numpy().copy())

    def finish(self, epoch: int) -> dict[str, float]:
        """The share of pairs that counted as sound, and how often a shortlist missed the best caption."""
        missed = self.captions.missed
        return {
            "sound": self._sound / len(self.partner),
            **({} if missed is None else {"shortlist_missed": missed}),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Captions and evidence, and the epoch's partners and count of sound pairs so far."""
        epoch = {"partner": self.partner, "sound": torch.tensor(self._sound, dtype=torch.float64)}
        return {**kept(self._parts()), **{f"epoch.{name}": value for name, value in epoch.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.partner, self._sound = state["epoch.partner"].clone(), float(state["epoch.sound"])
        restore(self._parts(), state)

    def _parts(self) -> dict[str, Part]:
        return {"captions": self.captions, "judge": self.judge}

    def _verdict(
        self, batch: Batch, towers: Towers, image: Features, own: Features, shifts: list[int]
    ) -> Verdict:
        """Which rows of the batch may keep their captions."""
        if self.config.reassign == "all":
            keep = torch.full((len(batch.rows),), batch.epoch % self.config.every != 0)
            return Verdict(keep, torch.zeros_like(keep))
        verdict = self.judge.judge(batch, towers, image, own, shifts)
        self._sound += float(verdict.sound.sum())
        return verdict

    @torch.no_grad()
    def _hosting(self, view: Tensor, batch: Batch, image: Features, verdict: Verdict) -> Tensor:
        """A view in which sound images, or a share of them, host a recurring region of the batch's first view."""
        donors, grid = verdict.recurring.nonzero().squeeze(1), grid_side(image.tokens.shape[1])
        hosts = verdict.sound & (torch.rand(len(view), generator=batch.rng) < self.config.transplant)
        if not len(donors) or not grid or not hosts.any():
            return view
        donor = image[donors.to(image.mask.device)]
        found, places = view.clone(), self.judge.recurrence.place(batch.rows[donors], donor).cpu()
        found[hosts] = transplanted(view[hosts], batch.images[0][donors], places, grid, batch.rng)
        return found

    def _partners(
        self, batch: Batch, towers: Towers, image: Features, own: Features, suspect: Tensor
    ) -> tuple[Features, Tensor]:
        """The captions to train on, and what the rows count: features of b captions, and (b,) on the CPU."""
        rows = batch.rows
        self.partner[rows] = rows
        if not suspect.any():
            return own, self._share[rows]
        antidote = self.config.weight if len(self.captions) else 0.0
        weights = self._share[rows] * torch.where(suspect, antidote, 1.0)
        if antidote:
            return self._recaptioned(batch, towers, image, suspect), weights
        self.partner[rows[suspect]] = LEFT_OUT
        return own, weights

    def _recaptioned(self, batch: Batch, towers: Towers, image: Features, suspect: Tensor) -> Features:
        """The captions of the batch, in which suspicious images have those of the pool that suit them best."""
        at = suspect.nonzero().squeeze(1)
        here = at.to(image.embedding.device)
        asking = image[here]
        if self.config.regions < 1:
            asking = replace(asking, embedding=even(asking))
        found = self.captions.best(asking, self.config.candidates)
        self.partner[batch.rows[at]] = found.row[:, 0].cpu()
        ids = batch.tokens[0].clone()
        ids[at] = found.ids[:, 0].to(ids.device)
        text = towers.text(ids)
        if self.config.candidates == 1:
            return text
        embedding = text.embedding.index_copy(0, here, found.mean().to(text.embedding.dtype))
        return Features(embedding, text.tokens, text.mask)

    def _remember(self, batch: Batch, image: Features, own: Features, sound: Tensor) -> None:
        """The pool takes in captions in every epoch; those of suspicious pairs stay out while pairs are tested."""
        keep = sound if self.config.reassign == "suspicious" else torch.ones_like(sound)
        if keep.any():
            here, rows = keep.nonzero().squeeze(1).to(own.mask.device), batch.rows[keep]
            self.captions.add(own[here], batch.tokens[0][keep], rows)
            self.judge.remember(image[here], own[here], rows)

    def _align(
        self,
        first: Features,
        second: Features,
        shifts: list[int],
        weights: Tensor,
        caption: Tensor,
        towers: Towers,
    ) -> Tensor:
        config = self.config
        fit = transport_ring(
            first, second, shifts, config.eps, config.iterations, config.backend, config.gradient
        )
        return aligned(fit, shifts, weights, caption, towers.scale, config.form, config.bystanders)
