"""Fused kernels for CUDA: products, reductions and Sinkhorn's iterations of a tile stay on the chip.

Only the tokens are read and only one number per pair is written; no cost matrix ever reaches device memory. What the numbers are
is said in bounds.py and sinkhorn.py; the kernels compute the same.
"""
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def bounds_kernel(
    visual, text, a, b, visual_away, text_away, out, images, captions, m, n,
    D: tl.constexpr, BI: tl.constexpr, MP: tl.constexpr, BC: tl.constexpr, NP: tl.constexpr, BD: tl.constexpr,
    ROWS_FIRST: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """Lower bounds of BI images by BC captions.

    Args:
        visual: (images, m, D) rounded tokens.
        text: (captions, n, D) rounded tokens.
        a: (images, m) masses.
        b: (captions, n) masses.
        visual_away: (images,) mean distance of the tokens from their rounded selves, under the masses.
        text_away: (captions,) likewise.
        out: (images, captions).
        images: how many.
        captions: how many.
        m: visual tokens.
        n: text tokens.
        D: dimensions.
        BI: images of a tile.
        MP: m, padded to a power of two.
        BC: captions of a tile.
        NP: n, padded to a power of two.
        BD: dimensions multiplied at a time.
        ROWS_FIRST: whether rows are reduced before columns.
        FAR: cost of padding.
    """
    # one axis, since CUDA's others are short; images first, so that neighbours share the captions of a tile
    image_tiles = tl.cdiv(images, BI)
    first_image, first_caption = tl.program_id(0) % image_tiles * BI, tl.program_id(0) // image_tiles * BC
    image, caption = first_image + tl.arange(0, BI), first_caption + tl.arange(0, BC)
    at_row, at_column = tl.arange(0, BI * MP), tl.arange(0, BC * NP)
    row_image, row_token = first_image + at_row // MP, at_row % MP
    column_caption, column_token = first_caption + at_column // NP, at_column % NP
    row_in = (row_image < images) & (row_token < m)
    column_in = (column_caption < captions) & (column_token < n)
    row, column = row_image.to(tl.int64) * m + row_token, column_caption.to(tl.int64) * n + column_token
    products = tl.zeros((BI * MP, BC * NP), dtype=tl.float32)
    for start in range(0, D, BD):
        k = start + tl.arange(0, BD)
        k_in = k < D
        v = tl.load(visual + row[:, None] * D + k[None, :], mask=row_in[:, None] & k_in[None, :], other=0.0)
        u = tl.load(
            text + column[None, :] * D + k[:, None], mask=column_in[None, :] & k_in[:, None], other=0.0
        )
        products = tl.dot(v, u, products)
    row_mass = tl.load(a + row, mask=row_in, other=0.0)
    column_mass = tl.load(b + column, mask=column_in, other=0.0)
    real = (row_mass > 0)[:, None] & (column_mass > 0)[None, :]
    cost = tl.reshape(tl.where(real, 1 - products, FAR), (BI, MP, BC, NP))
    real = tl.reshape(real, (BI, MP, BC, NP))
    if ROWS_FIRST:
        f = tl.min(cost, axis=3)
        g = tl.min(tl.where(real, cost - tl.expand_dims(f, 3), FAR), axis=1)
    else:
        g = tl.min(cost, axis=1)
        f = tl.min(tl.where(real, cost - tl.expand_dims(g, 1), FAR), axis=3)
    mass_a, mass_b = tl.reshape(row_mass, (BI, MP)), tl.reshape(column_mass, (BC, NP))
    bound = tl.sum(tl.expand_dims(mass_a, 2) * f, axis=1) + tl.sum(tl.expand_dims(mass_b, 0) * g, axis=2)
    away = tl.load(visual_away + image, mask=image < images, other=0.0)
    bound -= away[:, None] + tl.load(text_away + caption, mask=caption < captions, other=0.0)[None, :]
    inside = (image < images)[:, None] & (caption < captions)[None, :]
    tl.store(out + image.to(tl.int64)[:, None] * captions + caption[None, :], bound, mask=inside)


@triton.jit
def costs_kernel(
    visual, text, a, b, image, caption, ceiling, out, m, n, eps, tolerance, iterations, stages,
    D: tl.constexpr, MP: tl.constexpr, NP: tl.constexpr, BD: tl.constexpr,
    STAGE: tl.constexpr, ABSORB: tl.constexpr, FAR: tl.constexpr, TINY: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The transport cost of one pair, infinite if the first bound exceeds its ceiling.

    Args:
        visual: (images, m, D) tokens.
        text: (captions, n, D) tokens.
        a: (images, m) masses.
        b: (captions, n) masses.
        image: (pairs,) int64.
        caption: (pairs,) int64.
        ceiling: (pairs,).
        out: (pairs,).
        m: visual tokens.
        n: text tokens.
        eps: weight of the entropy.
        tolerance: L1 error of the marginals at which the problem has converged.
        iterations: at most, at ``eps``.
        stages: how often ``eps`` is doubled for the start.
        D: dimensions.
        MP: m, padded to a power of two.
        NP: n, padded to a power of two.
        BD: dimensions multiplied at a time.
        STAGE: iterations at each larger entropy.
        ABSORB: iterations between absorptions.
        FAR: cost of padding.
        TINY: what divisors are at least.
        PRECISION: how fp32 numbers are multiplied.
    """
    pair = tl.program_id(0)
    i, p = tl.load(image + pair).to(tl.int64), tl.load(caption + pair).to(tl.int64)
    rows, columns = tl.arange(0, MP), tl.arange(0, NP)
    mass_a = tl.load(a + i * m + rows, mask=rows < m, other=0.0)
    mass_b = tl.load(b + p * n + columns, mask=columns < n, other=0.0)
    products = tl.zeros((MP, NP), dtype=tl.float32)
    for start in range(0, D, BD):
        k = start + tl.arange(0, BD)
        v_in, u_in = (rows < m)[:, None] & (k < D)[None, :], (columns < n)[None, :] & (k < D)[:, None]
        v_at = visual + (i * m + rows)[:, None] * D + k[None, :]
        u_at = text + (p * n + columns)[None, :] * D + k[:, None]
        v_part = tl.load(v_at, mask=v_in, other=0.0).to(tl.float32)
        u_part = tl.load(u_at, mask=u_in, other=0.0).to(tl.float32)
        products = tl.dot(v_part, u_part, products, input_precision=PRECISION)
    real = (mass_a > 0)[:, None] & (mass_b > 0)[None, :]
    cost = tl.where(real, 1 - products, FAR)
    f = tl.min(cost, axis=1)
    g = tl.min(tl.where(real, cost - f[:, None], FAR), axis=0)
    hopeful = tl.sum(mass_a * f) + tl.sum(mass_b * g) <= tl.load(ceiling + pair)

    stage = stages
    entropy = eps
    for _ in range(stages):
        entropy = entropy * 2
    while hopeful & (stage >= 0):
        kernel = tl.where(real, tl.exp((f[:, None] + g[None, :] - cost) / entropy), 0.0)
        u, v = tl.full((MP,), 1.0, tl.float32), tl.full((NP,), 1.0, tl.float32)
        last = stage == 0
        steps = tl.where(last, iterations, STAGE)
        step = 0
        # a problem in an earlier stage, or never looked at, has not converged
        missed = tl.sum(mass_a) * FAR
        while (step < steps) & ((missed > tolerance) | (stage > 0)):
            if (step > 0) & (step % ABSORB == 0):
                f += entropy * tl.log(tl.maximum(u, TINY))
                g += entropy * tl.log(tl.maximum(v, TINY))
                kernel = tl.where(real, tl.exp((f[:, None] + g[None, :] - cost) / entropy), 0.0)
                u, v = tl.full((MP,), 1.0, tl.float32), tl.full((NP,), 1.0, tl.float32)
            sums = tl.sum(kernel * v[None, :], axis=1)
            missed = tl.sum(tl.abs(u * sums - mass_a))
            u = mass_a / tl.maximum(sums, TINY)
            v = mass_b / tl.maximum(tl.sum(kernel * u[:, None], axis=0), TINY)
            step += 1
        f += entropy * tl.log(tl.maximum(u, TINY))
        g += entropy * tl.log(tl.maximum(v, TINY))
        entropy = entropy / 2
        stage -= 1

    plan = tl.where(real, tl.exp(tl.minimum((f[:, None] + g[None, :] - cost) / eps, 0.0)), 0.0)
    plan *= tl.minimum(mass_a / tl.maximum(tl.sum(plan, axis=1), TINY), 1.0)[:, None]
    plan *= tl.minimum(mass_b / tl.maximum(tl.sum(plan, axis=0), TINY), 1.0)[None, :]
    short_a = tl.maximum(mass_a - tl.sum(plan, axis=1), 0.0)
    short_b = tl.maximum(mass_b - tl.sum(plan, axis=0), 0.0)
    missing = tl.maximum(tl.maximum(tl.sum(short_a), tl.sum(short_b)), TINY)
    plan += short_a[:, None] * short_b[None, :] / missing
    moved = tl.sum(tl.sum(plan * cost, axis=1), axis=0)
    tl.store(out + pair, tl.where(hopeful, moved, float("inf")))
