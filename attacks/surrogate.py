"""A CLIP of the attacker's own, for poisons that are meant to look right to a model that has not seen them.

The attacker trains it on the pairs that it holds and measures, as OTCCLIP does (arXiv:2509.18717), the cost of transporting
the visual tokens of a picture to the text tokens of a caption. Recipe and size are our reconstruction: the paper names an
adaptive attack and not its surrogate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from poisonbench.attack import Attack, AttackConfig
from poisonbench.defense import Objective
from poisonbench.errors import UserError
from poisonbench.loader import Loader
from poisonbench.pairs import Chosen, ImageStore, Pairs, Rows
from poisonbench.progress import Progress
from poisonbench.tier import Recipe
from poisonbench.tokens import Tokenizer
from poisonbench.towers import Features, Towers, build_towers, model_config
from poisonbench.training import fit

TOGETHER = 512
"""Pictures or captions that the towers take at a time."""


class SurrogateConfig(AttackConfig):
    """What the attacker trains.

    Attributes:
        surrogate: an open_clip configuration; pictures are scaled to its side.
        epochs: of the surrogate's training.
        held: pairs that the attacker holds at most; a random part of the training pairs where there are more.
    """

    surrogate: str = "poisonbench-xs"
    epochs: int = Field(4, ge=1, le=100)
    held: int = Field(16384, ge=2)


@dataclass(frozen=True)
class Surrogate:
    """A trained model that says how well pictures and captions fit."""

    towers: Towers

    def distances(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Entropic transport costs between the tokens of b pictures and of p captions.

        Args:
            images: uint8 (b, 3, side, side), of any side.
            captions: p texts.

        Returns:
            fp32 (b, p), in [0, 2], on the CPU.
        """
        from poisonbench.defenses.otcclip.matcher import distances
        from poisonbench.defenses.otcclip.token_sets import TokenSets

        with _one_thread():
            visual, text = self._images(images), self._captions(captions)
            return distances(TokenSets.of(visual.tokens, visual.mask), TokenSets.of(text.tokens, text.mask))

    @torch.no_grad()
    def _images(self, images: Tensor) -> Features:
        parts = torch.split(images, TOGETHER)
        return _joined([self.towers.image(_scaled(part, self.towers.side)) for part in parts])

    @torch.no_grad()
    def _captions(self, captions: Sequence[str]) -> Features:
        ids = self.towers.tokenizer(captions)
        return _joined([self.towers.text(part) for part in torch.split(ids, TOGETHER)])


class WithSurrogate(Attack):
    """Base of the attacks that train a surrogate; their ``Config`` has the fields of ``SurrogateConfig``.

    A base rather than a function, so that a change of the surrogate is a change of the attack and makes new cells.
    """

    def surrogate(self, pairs: Pairs, rng: np.random.Generator) -> Surrogate:
        """Train plain CLIP on the pairs that the attacker holds.

        It is trained on one core of the CPU in fp32, wherever the cell trains: cells of all devices share the poisons.

        Raises:
            UserError: if open_clip has no such model.
        """
        config = self.config
        held = _held(pairs, config.held, rng)
        seed = int(rng.integers(1 << 31))
        recipe = Recipe(epochs=config.epochs, batch=64, lr=1e-3, precision="fp32", images="flip")
        with _one_thread():
            towers = self._fresh(held, seed)
            pairs = Pairs(Scaled(held.images, towers.side), held.captions, held.fingerprint)
            loader = Loader(pairs, towers.tokenizer, {}, recipe.batch, seed)
            fit(towers, Objective(), loader, recipe, Progress())
        return Surrogate(towers.eval())

    def _fresh(self, pairs: Pairs, seed: int) -> Towers:
        name = self.config.surrogate
        try:
            context = int(model_config(name)["text_cfg"].get("context_length", 77))
        except UserError as error:
            reason = str(error).replace("model.name", "surrogate")
            raise UserError(f"attack '{self.name}': {reason}") from None
        texts = (text for options in pairs.captions for text in options)
        return build_towers(name, Tokenizer.trimmed_to(texts, context), seed=seed, device="cpu", bf16=False)


@dataclass(frozen=True)
class Scaled:
    """The images of another store at another side."""

    store: ImageStore
    side: int

    def __len__(self) -> int:
        return len(self.store)

    def fetch(self, rows: Rows) -> Tensor:
        """The images of ``rows``, uint8 (len(rows), 3, side, side)."""
        return _scaled(self.store.fetch(rows), self.side)


def _scaled(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    scaled = F.interpolate(images.float(), size=side, mode="bicubic", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _held(pairs: Pairs, most: int, rng: np.random.Generator) -> Pairs:
    """``pairs``, or a random part of them."""
    if len(pairs) <= most:
        return pairs
    rows = np.sort(rng.choice(len(pairs), most, replace=False))
    return Pairs(Chosen(pairs.images, rows), [pairs.captions[row] for row in rows], pairs.fingerprint)


def _joined(parts: Sequence[Features]) -> Features:
    kinds = zip(*((part.embedding, part.tokens, part.mask) for part in parts), strict=True)
    embedding, tokens, mask = (torch.cat(kind) for kind in kinds)
    return Features(embedding, tokens, mask)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums do not depend on how many threads a cell has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
