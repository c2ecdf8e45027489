"""Tokens to match: random ones that cluster by kind, or those that a trained checkpoint gives the embedded data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from poisonbench.pairs import Pairs, Rows
    from poisonbench.sources import Data
    from poisonbench.tier import Tier
    from poisonbench.towers import Features, Towers

KINDS = 400
"""Kinds of random images and captions."""
SPREAD = 1.0
"""Length of what separates a random token from the centre of its kind, where the centre has length 1."""

TOGETHER = 512
"""Pictures or captions that a tower takes at a time."""


@dataclass(frozen=True)
class Size:
    """How much is matched.

    Attributes:
        images: queries.
        visual: tokens of each.
        captions: in the pool.
        text: tokens of each, at most.
        d: dimensions of a token.
    """

    images: int
    visual: int
    captions: int
    text: int
    d: int


def random_tokens(size: Size, device: str) -> tuple[TokenSets, TokenSets]:
    """Full sets of unit tokens that scatter around the centre of a kind; text tokens in bf16, as a pool holds them."""
    import torch
    import torch.nn.functional as F

    rng = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(KINDS, 1, size.d, generator=rng), dim=-1)

    def drawn(count: int, tokens: int) -> TokenSets:
        kind = torch.randint(KINDS, (count,), generator=rng)
        away = F.normalize(torch.randn(count, tokens, size.d, generator=rng), dim=-1)
        return TokenSets.of(F.normalize(centres[kind] + SPREAD * away, dim=-1).to(device))

    return drawn(size.images, size.visual), halved(drawn(size.captions, size.text))


def real_tokens(checkpoint: Path, images: int, captions: int, device: str) -> tuple[TokenSets, TokenSets]:
    """Validation images and training captions of a finished cell's data, embedded by its model.

    Args:
        checkpoint: the ``model.safetensors`` of a cell, with its ``record.json`` beside it.
        images: how many; taken from the start again where there are fewer.
        captions: likewise, in an order of their own.
        device: where the tokens go.

    Raises:
        UserError: for a checkpoint that cannot be read or was trained on other data.
    """
    import numpy as np

    data, towers = opened(checkpoint, device)
    order = np.random.default_rng(0).permutation(len(data.train))
    texts = [data.train.captions[int(row)][0] for row in np.resize(order, captions)]
    rows = np.resize(np.arange(len(data.validation)), images)
    seen, read = seen_by(towers, data.validation, rows), read_by(towers, texts)
    visual, text = (TokenSets.of(side.tokens, side.mask) for side in (seen, read))
    return visual, halved(text)


def opened(checkpoint: Path, device: str) -> tuple[Data, Towers]:
    """A finished cell's clean data, and its model as at inference.

    Raises:
        UserError: for a checkpoint that cannot be read or was trained on other data.
    """
    from poisonbench.sources.opening import open_data
    from poisonbench.towers import image_side

    tier = tier_of(checkpoint)
    data = open_data(tier.data, image_side(tier.model.name))
    return data, _towers(checkpoint, tier, data, device)


def seen_by(
    towers: Towers, pairs: Pairs, rows: Rows, look: Callable[[Tensor], Tensor] = lambda images: images
) -> Features:
    """What the image tower makes of rows, in plain views or in a ``look`` at them as bytes."""
    import numpy as np

    parts = np.array_split(rows, 1 + len(rows) // TOGETHER)
    return _joined(lambda part: towers.image(look(pairs.images.fetch(part))), parts)


def read_by(towers: Towers, texts: Sequence[str]) -> Features:
    """What the text tower makes of captions."""
    parts = [texts[at : at + TOGETHER] for at in range(0, len(texts), TOGETHER)]
    return _joined(lambda part: towers.text(towers.tokenizer(part)), parts)


def _joined(tower: Callable[[Any], Features], parts: Sequence[Any]) -> Features:
    import torch

    from poisonbench.towers import Features

    with torch.inference_mode():
        found = [tower(part) for part in parts]
    names = ("embedding", "tokens", "mask")
    return Features(*(torch.cat([getattr(part, name) for part in found]) for name in names))


def halved(sets: TokenSets) -> TokenSets:
    """The sets with tokens in bf16."""
    import torch

    return TokenSets(sets.tokens.to(torch.bfloat16), sets.mass, sets.length)


def tier_of(checkpoint: Path) -> Tier:
    """The tier of a finished cell.

    Raises:
        UserError: for anything but the ``model.safetensors`` beside a ``record.json``.
    """
    from poisonbench.settings import validated
    from poisonbench.tier import Tier

    record = checkpoint.parent / "record.json"
    if not checkpoint.is_file() or not record.is_file():
        raise UserError(
            f"--checkpoint {checkpoint}: give the model.safetensors of a finished cell, beside its record.json"
        )
    return validated(Tier, json.loads(record.read_text())["config"]["tier"], str(record))


def _towers(checkpoint: Path, tier: Tier, data: Data, device: str) -> Towers:
    from safetensors.torch import load_file

    from poisonbench.precision import precision_on
    from poisonbench.sources.vocabulary import tokenizer_for
    from poisonbench.towers import build_towers

    bf16 = precision_on(device, tier.recipe.precision) == "bf16"
    towers = build_towers(tier.model.name, tokenizer_for(data, tier.model), seed=0, device=device, bf16=bf16)
    state: dict[str, Tensor] = load_file(checkpoint, device=device)
    try:
        towers.model.load_state_dict(state)
    except RuntimeError:
        raise UserError(
            f"--checkpoint {checkpoint}: its model does not fit the data as they are now; run its cell again"
        ) from None
    return towers.eval()
