"""What similar pairs say of a pair: the captions of images like this one, the images of captions like this one.

A caption that nothing else in the model's eyes speaks for is judged by agreement: it should resemble the captions of the images
that resemble its own. Only pairs that counted as sound are asked. Our reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from poisonbench.defenses.otcclip.rings import cosine_ring
from poisonbench.pool import Pool
from poisonbench.towers import Features


class Neighbours:
    """A pool of recent sound pairs.

    Attributes:
        pool: entries with ``image`` and ``text`` embeddings and ``picture``, the number of the picture (equal for copies).
    """

    def __init__(self, capacity: int, count: int) -> None:
        """``count`` neighbours are asked."""
        self.pool, self._count = Pool(capacity), count

    def add(self, image: Tensor, text: Tensor, picture: Tensor) -> None:
        """Take in pairs: unit vectors (c, d) twice, and int64 (c,)."""
        self.pool.push(image=image, text=text, picture=picture.to(image.device))

    def fits(
        self, image: Features, text: Features, picture: Tensor, shifts: Sequence[int], scale: Tensor
    ) -> list[Tensor]:
        """How well image i suits caption i + shift, by the neighbours of either: two (b, len(shifts)).

        Args:
            image: of b rows.
            text: of the same rows.
            picture: int64 (b,); copies of a picture are not asked about it.
            shifts: ring offsets.
            scale: the exponentiated logit scale; the more a neighbour resembles, the more it counts.
        """
        if not 0 < self._count <= len(self.pool):
            return []
        images, texts = self.pool["image"].float(), self.pool["text"].float()
        same = picture.to(images.device)[:, None] == self.pool["picture"]
        image_of, text_of = image.embedding.float(), text.embedding.float()
        said = self._mean((image_of @ images.T).masked_fill(same, -1), texts, scale)
        seen = self._mean((text_of @ texts.T).masked_fill(same, -1), images, scale)
        return [cosine_ring(said, text_of, shifts), cosine_ring(image_of, seen, shifts)]

    def _mean(self, likeness: Tensor, of: Tensor, scale: Tensor) -> Tensor:
        """What stands in ``of`` for the entries most alike, as unit vectors (b, d)."""
        nearest = likeness.topk(self._count, dim=1)
        share = (scale * nearest.values).softmax(dim=1).unsqueeze(-1)
        return F.normalize((share * of[nearest.indices]).sum(dim=1), dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """The pool as tensors."""
        return self.pool.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self.pool.load_state_dict(state)
