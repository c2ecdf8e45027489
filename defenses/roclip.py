"""RoCLIP (Yang, Gao and Mirzasoleiman, NeurIPS 2023, arXiv 2303.06854)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
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
from poisonbench.pool import Pool
from poisonbench.towers import Towers


class RoCLIP(Defense):
    """In every K-th epoch each image is paired with the nearest caption of a pool of recent captions; else plain CLIP.

    As in the released code: the search is by cosine of global embeddings, the pool is touched in matching epochs only and
    starts as random unit vectors, the partner carries no gradient (so the text tower rests in those epochs), and images and
    captions are augmented in all epochs.
    """

    card = DefenseCard(title="RoCLIP", paper="arXiv:2303.06854", year=2023, track="pre-training")

    class Config(DefenseConfig):
        """Period, pool and augmentation.

        Attributes:
            every: K; in epochs divisible by it images are matched (a K beyond the last epoch is augmentation only).
            pool: captions in the pool; about 2% of the data at paper scale.
            images: image augmentation.
            texts: caption augmentation.
        """

        every: int = Field(2, ge=1)
        pool: int = Field(21845, ge=1)
        images: ImageAugment = Field("roclip")
        texts: TextAugment = Field("eda")

    def objective(self, lab: Lab) -> Objective:
        """CLIP with matching epochs."""
        return Matching(self.config, lab)


class Matching(Objective):
    """RoCLIP's loss; see ``RoCLIP``."""

    def __init__(self, config: RoCLIP.Config, lab: Lab) -> None:
        self.every, self.images, self.texts = config.every, config.images, config.texts
        self.pool = Pool(config.pool)
        self._rng = lab.rng("pool")
        self._own = torch.arange(len(lab.pairs))
        self.partner = self._own.clone()

    def plan(self, epoch: int) -> Sequence[Pass]:
        """One pass over all rows."""
        self.partner = self._own.clone()
        return [Pass(self.loss)]

    def loss(self, batch: Batch, towers: Towers) -> Tensor:
        """CLIP's loss with the own caption, or in matching epochs with the nearest of the pool."""
        image = towers.image(batch.images[0]).embedding
        if batch.epoch % self.every:
            return clip_loss(image, towers.text(batch.tokens[0]).embedding, towers.scale)
        with torch.no_grad():
            own = towers.text(batch.tokens[0]).embedding
        if not len(self.pool):
            self._fill_with_noise(own)
        nearest = (image.detach() @ self.pool["embedding"].T).argmax(dim=1)
        partner, rows = self.pool["embedding"][nearest], self.pool["row"][nearest].cpu()
        self.partner[batch.rows] = rows
        self.pool.push(embedding=own, row=batch.rows.to(own.device))
        return clip_loss(image, partner, towers.scale)

    def assignment(self) -> Assignment:
        """Whose caption every image was given; -1 where the pool still held noise."""
        return Assignment(self.partner.numpy().copy())

    def state_dict(self) -> dict[str, Tensor]:
        """The pool."""
        return self.pool.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the pool."""
        self.pool.load_state_dict(state)

    def _fill_with_noise(self, like: Tensor) -> None:
        noise = F.normalize(torch.randn(self.pool.capacity, like.shape[1], generator=self._rng), dim=1)
        self.pool.push(embedding=noise.to(like), row=torch.full((len(noise),), -1, device=like.device))
