"""What speaks for a pair being sound, gathered from the model as it is; ``separation`` weighs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from poisonbench.defense import Batch
from poisonbench.defenses.otcclip.config import OTCCLIPConfig
from poisonbench.defenses.otcclip.looks import disturbed, each_in_its_look
from poisonbench.defenses.otcclip.measure import Fits, Measure
from poisonbench.defenses.otcclip.neighbours import Neighbours
from poisonbench.defenses.otcclip.parts import Part, kept, restore
from poisonbench.defenses.otcclip.recurrence import Recurrence
from poisonbench.defenses.otcclip.scout import Suspicion
from poisonbench.defenses.otcclip.separation import Separation, halves
from poisonbench.pairs import ImageStore
from poisonbench.towers import Features, Towers

FEWEST = 3
"""With so few references nothing can be standardised; such a stub of a batch is trusted."""


@dataclass(frozen=True)
class Verdict:
    """What is held of b pairs.

    Attributes:
        sound: bool (b,), on the CPU: these keep their captions.
        recurring: bool (b,), on the CPU: some region recurs among pairs that do not fit.
    """

    sound: Tensor
    recurring: Tensor


class Judge:
    """Tests every pair of a batch against mismatched ones, and every image for regions that recur among the ill-fitting.

    Attributes:
        separation: the evidence of all rows.
        recurrence: of all images.
        neighbours: recent sound pairs, whose agreement may count.
    """

    def __init__(self, config: OTCCLIPConfig, pictures: ImageStore, scouted: Suspicion) -> None:
        """``scouted`` is what a scout holds of the rows of ``pictures``."""
        self.separation = Separation(scouted.groups, config.memory)
        self.neighbours = Neighbours(config.pool, config.neighbours)
        self.recurrence = Recurrence(scouted.groups, config.memory, config.recurring)
        self._config, self._pictures = config, pictures
        self._scouted, self._suspected = scouted, scouted.suspects

    @torch.no_grad()
    def judge(
        self, batch: Batch, towers: Towers, image: Features, own: Features, shifts: list[int]
    ) -> Verdict:
        """Hear what speaks for every pair of the batch, and against it.

        Args:
            batch: b rows.
            towers: the model.
            image: of the batch's first view.
            own: of the batch's own captions.
            shifts: the ring offsets of the references, 0 first.
        """
        rows, config = batch.rows, self._config
        trusted = ~self._suspected[rows]
        if len(shifts) <= FEWEST:
            return Verdict(trusted, torch.zeros_like(trusted))
        looks = self._looks(batch, towers, image)
        own_fit, decoy_fit = self._evidence(rows, towers, looks, Measure(config, own, shifts))
        sound, unfit = self.separation.judge(rows, own_fit, decoy_fit, self.level(batch))
        recurring = torch.zeros_like(trusted)
        if config.recurring:
            recurring = self.recurrence.recurring(rows, looks, sound)
            self.recurrence.add(rows, looks[0], unfit, sound & ~recurring)
        return Verdict(trusted if batch.progress < config.warmup else sound & ~recurring, recurring)

    def level(self, batch: Batch) -> Tensor:
        """The share of decoys that may pass, for every row of the batch, (b,): the less, the stranger its crowd."""
        config = self._config
        level = config.level + batch.progress * (config.final_level - config.level)
        strange = self._scouted.degree if config.graded else self._suspected.float()
        return level * (1 - (1 - config.burden) * strange[batch.rows])

    def remember(self, image: Features, own: Features, rows: Tensor) -> None:
        """Take in sound pairs: features of c of them, and their rows (c,)."""
        if self._config.neighbours:
            self.neighbours.add(image.embedding, own.embedding, self.separation.groups[rows])

    def _evidence(
        self, rows: Tensor, towers: Towers, looks: Sequence[Features], measure: Measure
    ) -> tuple[Tensor, Tensor]:
        """For the own pairs of the batch's rows and for the decoys, the least of all looks: (b,) twice, on the CPU."""
        fits = [measure.fits(look) for look in looks]
        copies = self.separation.groups[rows]
        near = [
            self.neighbours.fits(look, measure.captions, copies, measure.shifts, towers.scale)
            for look in looks
        ]
        judged = [measure.evidence(fit, others) for fit, others in zip(fits, near, strict=True)]
        own, decoy = (torch.stack(side).amin(dim=0) for side in zip(*judged, strict=True))
        suspects = self._suspected[rows].nonzero().squeeze(1)
        if self._config.hearing != "plain" and len(suspects):
            heard = self._heard(rows[suspects], towers, measure, fits[0], suspects)
            own[suspects] = torch.minimum(own[suspects], heard)
        return own, decoy

    def _heard(self, rows: Tensor, towers: Towers, measure: Measure, plain: Fits, at: Tensor) -> Tensor:
        """The least evidence, in every or the telling disturbed look, for some rows at places ``at`` of the batch."""
        images, names, here = self._whole(rows), self._config.looks, at.to(plain[0].device)
        every = self._config.hearing == "every"
        views = (
            disturbed(images, names)
            if every
            else [each_in_its_look(images, names, self._scouted.telling[rows])]
        )
        looks = self._seen(towers, views)
        heard = [measure.evidence_anew(measure.fits(look, here), plain, here) for look in looks]
        return torch.stack(heard).amin(dim=0)

    def _looks(self, batch: Batch, towers: Towers, augmented: Features) -> list[Features]:
        """What of the images is judged; the network is used as at inference, unless the training view serves."""
        if self._config.judge == "augmented":
            return [augmented]
        images = self._whole(batch.rows)
        return self._seen(towers, halves(images, batch.rng) if self._config.judge == "halves" else [images])

    def _whole(self, rows: Tensor) -> Tensor:
        """The pictures of rows as they are, (k, 3, side, side) in [0, 1]."""
        return self._pictures.fetch(rows.numpy()).float() / 255

    def _seen(self, towers: Towers, views: Sequence[Tensor]) -> list[Features]:
        """What the network, as at inference, makes of views."""
        mode = towers.training
        towers.eval()
        looks = [towers.image(view) for view in views]
        towers.train(mode)
        return looks

    def state_dict(self) -> dict[str, Tensor]:
        """Evidence, recurrence and neighbours as tensors."""
        return kept(self._parts())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        restore(self._parts(), state)

    def _parts(self) -> dict[str, Part]:
        return {"separation": self.separation, "recurrence": self.recurrence, "neighbours": self.neighbours}
