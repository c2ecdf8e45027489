"""OTCCLIP (arXiv 2509.18717): re-assign captions by optimal transport between fine-grained features, and align them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

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
from poisonbench.defenses.otcclip.captions import Captions, part_of
from poisonbench.defenses.otcclip.losses import Form, aligned, ring, weighted_clip
from poisonbench.defenses.otcclip.matcher import Backend, Gradient, Transport
from poisonbench.defenses.otcclip.neighbours import Neighbours, on_ring
from poisonbench.defenses.otcclip.separation import Separation, halves, pictures, standardised
from poisonbench.lab import Lab
from poisonbench.settings import Presets
from poisonbench.towers import Features, Towers

LEFT_OUT = -1
FEWEST = 3
"""With so few references nothing can be standardised; such a stub of a batch is trusted."""


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
        reconstruction="Layers, marginals, entropy, pool, period, separation and loss weights are our inference; "
        "the paper's abstract fixes the OT re-assignment and the inter- and intra-modal OT objectives only.",
    )

    presets: ClassVar[Presets] = {
        "every_image": {
            "reassign": "all", "every": 2, "weight": 1, "copies": "many", "inter": 1, "intra": 1, "shortlist": 32,
        },
        "positive": {"form": "positive"},
    }  # fmt: skip

    class Config(DefenseConfig):
        """Which captions are replaced, how the new ones are found, and what is minimised.

        Attributes:
            reassign: ``suspicious`` pairs only, or ``all`` pairs in every ``every``-th epoch (RoCLIP's schedule).
            every: K for ``all``.
            level: share of mismatched pairs that would pass as sound when the test begins.
            final_level: the same at the end of the run; the level moves linearly, as the test gains power.
            memory: how much of a row's evidence from earlier epochs is kept.
            warmup: share of the run in which all pairs are still trusted.
            judge: test the pairs on both halves of the image, either of which must fit (a local trigger is in one of them; two
                more forward passes), on the plain image (one), or on the augmented view (none).
            copies: how much k copies of a picture count in the losses: as ``one`` picture, or as ``many``.
            references: mismatched captions per image in the test of soundness.
            neighbours: similar sound pairs whose agreement counts in the test, as much as the own fit; 0 asks none.
            beta: weight of the global cosine beside the OT similarity, in tests and matching.
            eps: entropy of the transport plans.
            iterations: Sinkhorn iterations of the losses and the tests; matching goes on until its plans have converged.
            backend: who computes the plans.
            gradient: what the OT objectives differentiate, the transport cost or the entropic value (``matcher.similarity``).
            pool: captions in the pool.
            shortlist: match only among so many captions, the nearest by global cosine; 0 searches the whole pool, exactly.
            candidates: captions that a suspicious image is given; of several, the mean in the joint space, by their scores.
            weight: of re-captioned rows in the losses; 0 gives suspicious images no caption at all.
            bystanders: whether suspicious images without a caption are negatives of the others' captions all the same.
            inter: weight of the inter-modal OT objective.
            intra: weight of the intra-modal OT objective on a second view; 0 saves the view.
            negatives: other rows that the contrastive OT objectives rank against.
            form: contrastive or positive-pair OT objectives.
            images: image augmentation.
            texts: caption augmentation.
        """

        reassign: Literal["suspicious", "all"] = "suspicious"
        every: int = Field(2, ge=1)
        level: float = Field(0.25, gt=0, lt=1)
        final_level: float = Field(0.1, gt=0, lt=1)
        memory: float = Field(0.5, ge=0, lt=1)
        warmup: float = Field(0.05, ge=0, lt=1)
        judge: Literal["halves", "plain", "augmented"] = "plain"
        copies: Literal["one", "many"] = "one"
        references: int = Field(24, ge=4)
        neighbours: int = Field(0, ge=0)
        beta: float = Field(0.5, ge=0, le=1)
        eps: float = Field(0.1, ge=0.005)
        iterations: int = Field(10, ge=1)
        backend: Backend = "torch"
        gradient: Gradient = "detached"
        pool: int = Field(21845, ge=1)
        shortlist: int = Field(0, ge=0)
        candidates: int = Field(1, ge=1)
        weight: float = Field(0.6, ge=0)
        bystanders: bool = True
        inter: float = Field(0.5, ge=0)
        intra: float = Field(0.0, ge=0)
        negatives: int = Field(8, ge=1)
        form: Form = "contrastive"
        images: ImageAugment = "light"
        texts: TextAugment = "eda"

    def objective(self, lab: Lab) -> Objective:
        """CLIP with re-assigned captions and OT objectives."""
        return Reassigning(self.config, lab)


class Reassigning(Objective):
    """OTCCLIP's training; see ``OTCCLIP``."""

    def __init__(self, config: OTCCLIP.Config, lab: Lab) -> None:
        self.config, self.images, self.texts = config, config.images, config.texts
        self.views = 2 if config.intra else 1
        groups = pictures(lab.pairs.images)
        self.separation = Separation(groups, config.memory)
        self._share = (
            1 / torch.bincount(groups)[groups] if config.copies == "one" else torch.ones(len(groups))
        )
        self._pictures = lab.pairs.images
        how = Transport(eps=config.eps, backend=config.backend)
        self.captions = Captions(config.pool, config.beta, how, config.shortlist)
        self.neighbours = Neighbours(config.pool, config.neighbours)
        self.partner = torch.arange(len(lab.pairs))
        self._sound = 0.0

    def plan(self, epoch: int) -> Sequence[Pass]:
        """One pass over all rows."""
        self.partner = torch.arange(len(self.partner))
        self._sound = 0.0
        return [Pass(self.loss)]

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        """Judge the pairs, give suspicious images a new caption, align what results."""
        config, ids = self.config, batch.tokens[0]
        image, own = towers.image(batch.images[0]), towers.text(ids)
        offsets = torch.randperm(len(ids) - 1, generator=batch.rng)[: config.references] + 1
        shifts = [0, *offsets.tolist()]
        suspect = self._suspicious(batch, towers, image, own, shifts)
        text, weights = own, self._share[batch.rows]
        self.partner[batch.rows] = batch.rows
        if suspect.any():
            weights = weights * torch.where(suspect, config.weight if len(self.captions) else 0.0, 1.0)
            if config.weight and len(self.captions):
                text = self._recaptioned(batch, towers, image, suspect)
            else:
                self.partner[batch.rows[suspect]] = LEFT_OUT
        self._remember(batch, image, own, ~suspect)
        weights = weights.to(image.embedding.device)
        caption = self.partner[batch.rows].to(weights.device)
        loss = weighted_clip(
            image.embedding, text.embedding, towers.scale, weights, caption, config.bystanders
        )
        near = shifts[: 1 + config.negatives]
        if config.inter:
            loss = loss + config.inter * self._align(image, text, near, weights, caption, towers)
        if config.intra:
            other_image, other_text = towers.image(batch.images[1]), towers.text(batch.tokens[1])
            each, all_rows = torch.ones_like(weights), batch.rows.to(weights.device)
            loss = loss + config.intra / 2 * self._align(image, other_image, near, each, all_rows, towers)
            loss = loss + config.intra / 2 * self._align(own, other_text, near, each, all_rows, towers)
        return loss

    def assignment(self) -> Assignment:
        """Whose caption every image was given."""
        return Assignment(self.partner.numpy().copy())

    def finish(self, epoch: int) -> dict[str, float]:
        """The share of pairs that counted as sound."""
        return {"sound": self._sound / len(self.partner)}

    def state_dict(self) -> dict[str, Tensor]:
        """Captions and evidence, and the epoch's partners and count of sound pairs so far."""
        epoch = {"partner": self.partner, "sound": torch.tensor(self._sound, dtype=torch.float64)}
        parts = {**{name: part.state_dict() for name, part in self._parts().items()}, "epoch": epoch}
        return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.partner, self._sound = state["epoch.partner"].clone(), float(state["epoch.sound"])
        for name, part in self._parts().items():
            part.load_state_dict(part_of(state, f"{name}."))

    def _parts(self) -> dict[str, Captions | Separation | Neighbours]:
        return {"captions": self.captions, "separation": self.separation, "neighbours": self.neighbours}

    @torch.no_grad()
    def _suspicious(
        self, batch: Batch, towers: Towers, image: Features, own: Features, shifts: list[int]
    ) -> Tensor:
        """Which rows of the batch need a new caption: bool (b,), on the CPU."""
        if self.config.reassign == "all":
            return torch.full((len(batch.rows),), batch.epoch % self.config.every == 0)
        if len(shifts) <= FEWEST:
            return torch.zeros(len(batch.rows), dtype=torch.bool)
        config = self.config
        pictures_of = self.separation.groups[batch.rows]
        looks = self._looks(batch, towers, image)
        judged = [self._evidence(view, own, shifts, pictures_of, towers.scale) for view in looks]
        own_fit, decoy_fit = (torch.stack(side).amin(dim=0) for side in zip(*judged, strict=True))
        sound = self.separation.judge(batch.rows, own_fit, decoy_fit, self._level(batch.progress))
        if batch.progress < config.warmup:
            sound = torch.ones_like(sound)
        self._sound += float(sound.sum())
        return ~sound

    def _level(self, progress: float) -> float:
        return self.config.level + progress * (self.config.final_level - self.config.level)

    def _evidence(
        self, image: Features, own: Features, shifts: list[int], picture: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Standardised fit of the own pairs and of the decoys, global and fine-grained mixed by beta, on the CPU."""
        config = self.config
        fine = ring(image, own, shifts, config.eps, config.iterations, config.backend)
        coarse = on_ring(image.embedding, own.embedding, shifts)
        near = self.neighbours.fits(image, own, picture, shifts, scale) if config.neighbours else []
        parts = [(coarse, config.beta), (fine, 1 - config.beta), *((fit, 0.5) for fit in near)]
        judged = [(standardised(fit, shifts), share) for fit, share in parts]
        own_fit, decoy_fit = (sum(share * pair[side].float() for pair, share in judged) for side in (0, 1))
        return own_fit.cpu(), decoy_fit.cpu()

    def _looks(self, batch: Batch, towers: Towers, augmented: Features) -> list[Features]:
        """What of the images is judged; the network is used as at inference, unless the training view serves."""
        if self.config.judge == "augmented":
            return [augmented]
        mode, images = towers.training, self._pictures.fetch(batch.rows.numpy()).float() / 255
        towers.eval()
        looks = [
            towers.image(part)
            for part in (halves(images, batch.rng) if self.config.judge == "halves" else [images])
        ]
        towers.train(mode)
        return looks

    def _recaptioned(self, batch: Batch, towers: Towers, image: Features, suspect: Tensor) -> Features:
        """The captions of the batch, in which suspicious images have those of the pool that suit them best."""
        at = suspect.nonzero().squeeze(1)
        here = at.to(image.embedding.device)
        found = self.captions.best(_rows(image, here), self.config.candidates)
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
            here = keep.nonzero().squeeze(1).to(own.mask.device)
            rows = batch.rows[keep]
            self.captions.add(_rows(own, here), batch.tokens[0][keep], rows)
            if self.config.neighbours:
                self.neighbours.add(image.embedding[here], own.embedding[here], self.separation.groups[rows])

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
        fit = ring(first, second, shifts, config.eps, config.iterations, config.backend, config.gradient)
        return aligned(fit, shifts, weights, caption, towers.scale, config.form, config.bystanders)


def _rows(features: Features, rows: Tensor) -> Features:
    return Features(features.embedding[rows], features.tokens[rows], features.mask[rows])
