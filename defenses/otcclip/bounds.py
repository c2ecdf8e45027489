"""Lower bounds of the transport costs of all pairs, for little more than the matrix products that every method must make.

The relaxed cost lets each token of one side go to its nearest on the other and ignores the other side's masses (Kusner et al.,
2015, "relaxed word mover's distance"). Its nearest costs are dual potentials; what the other side's tokens then have left
over is a second potential, which makes the bound tighter for one more pass over the tile (our reconstruction of the
reductions that start the Hungarian method).

The products may be made in bf16. The bounds stay below the true costs by proof: with unit roundoff u, a product that comes out
as s is at most s + u|s| plus the distances of its two tokens from their rounded selves, which are measured and added to the
potentials, plus the accumulation's share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.precision import multiplies_bf16

CPU_TILE = {torch.bfloat16: 1 << 21, torch.float32: 1 << 23}
"""Bytes of a tile of products on a CPU. It is read three times and should stay in the caches; products in fp32, which take longer
than that, want many rows at once."""
CPU_CAPTIONS, GPU_CAPTIONS = 128, 1024
"""Captions side by side in a tile: enough for long vectors, few enough to be of about one length."""


def fast_type(device: torch.device) -> torch.dtype:
    """bf16 where the hardware multiplies it, else fp32."""
    return torch.bfloat16 if multiplies_bf16(device) else torch.float32


@dataclass(frozen=True)
class Rounded:
    """Tokens in the type of the products, and how far each is from what it was.

    Attributes:
        tokens: (s, t, d).
        away: (s, t), Euclidean distance to the original.
    """

    tokens: Tensor
    away: Tensor

    @classmethod
    def of(cls, tokens: Tensor, dtype: torch.dtype) -> Rounded:
        """Tokens (s, t, d) rounded to ``dtype``."""
        small = tokens.to(dtype)
        if tokens.dtype == dtype:
            return cls(small, torch.zeros(tokens.shape[:2], device=tokens.device))
        return cls(small, torch.linalg.vector_norm(tokens.float() - small.float(), dim=-1))


def relaxed(images: TokenSets, captions: TokenSets, dtype: torch.dtype, budget: int) -> Tensor:
    """Lower bounds of the transport cost of every image and caption: (b, p), fp32.

    Args:
        images: b sets.
        captions: p sets; best sorted by length, so that tiles hold little padding.
        dtype: of the products.
        budget: bytes that a tile of products may take.
    """
    device = images.tokens.device
    on_cpu = device.type == "cpu"
    visual = Rounded.of(images.tokens_repeated(), dtype)
    bounds = torch.empty(len(images), len(captions), device=device)
    pair = images.tokens.shape[1] * captions.tokens.shape[1] * dtype.itemsize
    width = min(CPU_CAPTIONS if on_cpu else GPU_CAPTIONS, max(1, budget // pair))
    # the memory of all tiles: fetched anew for each it can cost as much as the products
    room = torch.empty(0, dtype=dtype, device=device)
    for left in range(0, len(captions), width):
        tile = captions[left : left + width]
        text = Rounded.of(tile.tokens_repeated(), dtype)
        flat = text.tokens.transpose(0, 1).reshape(-1, text.tokens.shape[-1])
        row = images.tokens.shape[1] * len(flat) * dtype.itemsize
        height = max(1, (min(budget, CPU_TILE[dtype]) if on_cpu else budget) // row)
        for top in range(0, len(images), height):
            part = slice(top, min(top + height, len(images)))
            rows = visual.tokens[part].flatten(0, 1)
            products = torch.mm(rows, flat.T, out=room.resize_(len(rows), len(flat)))
            products = products.view(part.stop - top, -1, text.tokens.shape[1], len(tile))
            bounds[part, left : left + width] = _of_tile(
                products, images.mass[part], tile.mass, visual.away[part], text.away
            )
    return bounds - accumulation(dtype, device, images.tokens.shape[-1])


def accumulation(dtype: torch.dtype, device: torch.device, d: int) -> float:
    """How far fp32 accumulation of a product of unit vectors can err; a GPU may add partial sums in bf16."""
    partial = 2 * torch.finfo(dtype).eps if device.type != "cpu" and dtype == torch.bfloat16 else 0.0
    return d * torch.finfo(torch.float32).eps + partial


def _of_tile(products: Tensor, a: Tensor, b: Tensor, visual_away: Tensor, text_away: Tensor) -> Tensor:
    """Bounds (i, c) from the products (i, m, n, c) of a tile; the products are overwritten.

    Args:
        products: (i, m, n, c) in their rounded type.
        a: (i, m) masses.
        b: (c, n) masses.
        visual_away: (i, m) rounding of the tokens.
        text_away: (c, n) likewise.
    """
    unit = torch.finfo(products.dtype).eps / 2
    rows_first = products.shape[1] >= products.shape[2]
    first, second = (2, 1) if rows_first else (1, 2)
    best = products.amax(dim=first)
    left_over = products.sub_(best.unsqueeze(first)).amax(dim=second).float().neg_()
    best = best.float()
    nearest = 1 - (best + unit * best.abs())
    # |h(x) - h(y)| >= (1 - unit)|x - y| for h(x) = x + unit|x|, and the subtraction rounded once more
    left_over = (1 - 3 * unit) * left_over
    f, g = (nearest, left_over) if rows_first else (left_over, nearest)
    rounding = (a * visual_away).sum(dim=1)[:, None] * (1 + unit) + (b * text_away).sum(dim=1) * (
        1 + 2 * unit
    )
    return torch.bmm(a.unsqueeze(1), f).squeeze(1) + (g * b.T).sum(dim=1) - rounding
