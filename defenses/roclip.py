"""RoCLIP (Yang, Gao and Mirzasoleiman, NeurIPS 2023, arXiv 2303.06854); see docs/defenses/roclip.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

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
from poisonbench.lab import Lab
from poisonbench.losses import clip_loss
from poisonbench.pool import Bank
from poisonbench.towers import Towers


class RoCLIP(Defense):
    """In every K-th epoch each image is paired with the nearest caption of a pool of recent captions; else plain CLIP.

    As in the released code: the search is by cosine of global embeddings, the pool is touched in matching epochs only and
    starts as random unit vectors, the partner carries no gradient, and images and captions are augmented in all epochs.
    """

    card = DefenseCard(title="RoCLIP", paper="arXiv:2303.06854", year=2023, track="pre-training")

    class Config(DefenseConfig):
        """Period, pool and augmentation.

        Attributes:
            every: K; in epochs divisible by it images are matched (a K beyond the last epoch is augmentation only).
            pool: captions in the pool; about 2% of the data at paper scale.
            text: the text tower in matching epochs, in which it has no gradient: ``drift`` on by momentum and decay, as
                in the released code, or ``freeze``.
            images: image augmentation.
            texts: caption augmentation.
        """

        every: int = Field(2, ge=1)
        pool: int = Field(21845, ge=1)
        text: Literal["drift", "freeze"] = "drift"
        images: ImageAugment = "roclip"
        texts: TextAugment = "eda"

    def objective(self, lab: Lab) -> Objective:
        """CLIP with matching epochs."""
        return Matching(self.config, lab)


class Matching(Objective):
    """RoCLIP's loss; see ``RoCLIP``.

    Attributes:
        pool: embeddings of recent captions and the rows that they belong to.
        partner: int64, (n,): whose caption every row was last paired with in the present epoch.
    """

    def __init__(self, config: RoCLIP.Config, lab: Lab) -> None:
        self.every, self.text = config.every, config.text
        self.images, self.texts = config.images, config.texts
        self.pool = Bank(config.pool, lab.rng("pool"))
        self.partner = torch.arange(len(lab.pairs))
        self._epoch = 0

    def plan(self, epoch: int) -> Sequence[Pass]:
        """One pass over all rows."""
        if epoch != self._epoch:  # else the epoch was begun before and is resumed
            self._epoch, self.partner = epoch, torch.arange(len(self.partner))
        return [Pass(self.loss)]

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        """CLIP's loss with the own caption, or in matching epochs with the nearest of the pool."""
        image = towers.image(batch.images[0]).embedding
        if batch.epoch % self.every:
            return clip_loss(image, towers.text(batch.tokens[0]).embedding, towers.scale)
        with torch.no_grad():
            own = towers.text(batch.tokens[0]).embedding
        partner, row = self.pool.nearest(image)
        self.partner[batch.rows] = row.cpu()
        self.pool.push(embedding=own, row=batch.rows.to(own.device))
        loss = clip_loss(image, partner, towers.scale)
        return loss if self.text == "freeze" else loss + _no_gradient(towers.model.text)

    def finish(self, epoch: int) -> dict[str, float]:
        """The shares of rows last paired with another row's caption, and with the noise that the pool began with."""
        own = torch.arange(len(self.partner))
        noise = float((self.partner < 0).float().mean())
        return {"rematched": float((self.partner != own).float().mean()) - noise, "matched_to_noise": noise}

    def assignment(self) -> Assignment:
        """Whose caption every image was given; -1 where the pool still held noise."""
        return Assignment(self.partner.numpy().copy())

    def state_dict(self) -> dict[str, Tensor]:
        """The pool, and the epoch's partners so far."""
        return {
            **self.pool.state_dict(),
            "partner": self.partner.clone(),
            "epoch": torch.tensor(self._epoch),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.pool.load_state_dict(state)
        self.partner, self._epoch = state["partner"].clone(), int(state["epoch"])


def _no_gradient(tower: torch.nn.Module) -> Tensor:
    """Zero, with gradients of zero instead of none, so that AdamW goes on with momentum and weight decay."""
    return torch.stack([parameter.sum() for parameter in tower.parameters()]).sum() * 0
