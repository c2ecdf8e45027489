"""How fast the OT matcher is: ``python benchmarks/ot_matcher.py [--size A|B|tiny] [--tokens random|real] [--scaling] [--json]``.

Every row does the same job, the best caption of a pool for every image, or a sample of it scaled up. All rows take turns, round
by round, and medians count, so that ratios hold on a machine whose speed drifts. benchmarks/README.md works out the floor.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click
from ot_tokens import Size, random_tokens, real_tokens

from poisonbench.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from poisonbench.defenses.otcclip.token_sets import TokenSets
    from poisonbench.defenses.otcclip.transport import Transport

SIZES = {
    "A": Size(256, 16, 8192, 16, 128),
    "B": Size(512, 49, 21845, 32, 1024),
    "tiny": Size(8, 16, 128, 16, 32),
}
QUERIES, POOLS, TOKENS = 32, (1024, 4096, 16384, 65536), (16, 49, 196)
"""Of the scaling table."""
BATCH = 4096
"""Problems that POT is given at once; larger batches were slower on a CPU."""


@dataclass(frozen=True)
class Row:
    """One way to do the job.

    Attributes:
        name: for the table.
        work: does ``share`` of the job.
        share: 1 for the whole of it.
    """

    name: str
    work: Callable[[], object]
    share: float = 1.0


@click.command()
@click.option("--size", default="A", show_default=True, type=click.Choice(list(SIZES)))
@click.option("--tokens", default="random", show_default=True, type=click.Choice(["random", "real"]))
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="model.safetensors of a finished cell, for real tokens.",
)
@click.option("--eps", default=0.1, show_default=True, type=click.FloatRange(0.005))
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1), help="CPU threads.")
@click.option(
    "--repeats", default=5, show_default=True, type=click.IntRange(1), help="Rounds; medians count."
)
@click.option(
    "--sample",
    default=1 / 16,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the images for POT.",
)
@click.option("--scaling", is_flag=True, help="The scaling table instead: pools and tokens of growing size.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def main(
    size: str, tokens: str, checkpoint: Path | None, eps: float, device: str, threads: int, repeats: int,
    sample: float, scaling: bool, as_json: bool,
) -> None:  # fmt: skip
    """Time the matcher against POT, geomloss and the matrix products that no method can avoid."""
    import torch

    from poisonbench.defenses.otcclip.transport import Transport

    torch.set_num_threads(threads)
    how = Transport(eps=eps)
    if scaling:
        table = list(scaled(how, device, repeats))
        click.echo(json.dumps(table, indent=2) if as_json else _markdown(table))
        return
    try:
        sets = _tokens(SIZES[size], tokens, checkpoint, device)
    except UserError as error:
        raise click.UsageError(str(error)) from None
    settings = {"size": size, "tokens": tokens, "eps": eps, "device": device, "threads": threads}
    report = settings | measured(*sets, how, repeats, sample)
    click.echo(json.dumps(report, indent=2) if as_json else _text(report))


def measured(
    images: TokenSets, captions: TokenSets, how: Transport, repeats: int, sample: float
) -> dict[str, Any]:
    """Seconds of every row, and the ratios that the project promises."""
    from poisonbench.defenses.otcclip.matcher import match

    rows, skipped = _rows(images, captions, how, sample)
    seconds = timed(rows, repeats, images.tokens.device)
    ours = min(value for name, value in seconds.items() if name.startswith("match"))
    pot = min(value for name, value in seconds.items() if name.startswith("POT solve_batch"))
    on_cpu = images.tokens.device.type == "cpu"
    floors = {kind: seconds[f"products, {kind}"] for kind in ("fp32", "bf16")}
    return {
        "speedup_over_pot_batch": pot / ours,
        "times_floor": ours / floors["fp32" if on_cpu else "bf16"],
        "times_fp32_products": ours / floors["fp32"],
        "times_bf16_products": ours / floors["bf16"],
        "argmin_agreement": agreement(images, captions, how, sample),
        "text_tokens": float(captions.length.float().mean()),
        "share_solved": match(images, captions, how=how).solved,
        "seconds": seconds,
        "skipped": skipped,
    }


def timed(rows: list[Row], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of the whole job by row; the rows take turns, and a first round warms up."""
    import torch

    seen: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(repeats + 1):
        for row in rows:
            started = time.perf_counter()
            row.work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seen[row.name].append((time.perf_counter() - started) / row.share)
    return {name: median(values[1:]) for name, values in seen.items()}


def agreement(images: TokenSets, captions: TokenSets, how: Transport, sample: float) -> float:
    """Share of sampled images whose match costs, in POT's float64, no more than the best caption does (and 1e-5)."""
    from poisonbench.defenses.otcclip.matcher import match

    few = _some(images, sample)
    chosen = match(few, captions, how=how).index[:, 0].tolist()
    hits = 0
    for at, index in enumerate(chosen):
        costs = _pot(few[at : at + 1], captions, how.eps, 1e-7, "sinkhorn", double=True)
        hits += bool(costs[index] <= costs.min() + 1e-5)
    return hits / len(chosen)


def scaled(how: Transport, device: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Time per query for growing pools and token counts; growth is the exponent of the pool's size, 1 if proportional."""
    import torch

    from poisonbench.defenses.otcclip.matcher import match

    for tokens in TOKENS:
        before: tuple[int, float] | None = None
        for pool in POOLS:
            images, captions = random_tokens(Size(QUERIES, tokens, pool, min(tokens, 32), 128), device)
            rows = [Row("match", partial(match, images, captions, how=how)), *_floors(images, captions)]
            seconds = timed(rows, repeats, torch.device(device))
            growth = None
            if before is not None:
                growth = math.log(seconds["match"] / before[1]) / math.log(pool / before[0])
            before = pool, seconds["match"]
            yield {
                "visual tokens": tokens,
                "text tokens": min(tokens, 32),
                "pool": pool,
                "ms per query": round(1000 * seconds["match"] / len(images), 3),
                "x fp32 products": round(seconds["match"] / seconds["products, fp32"], 2),
                "share solved": round(match(images, captions, how=how).solved, 5),
                "growth": None if growth is None else round(growth, 2),
                "slower than the pool": None if growth is None else growth < 1,
            }


def _tokens(size: Size, kind: str, checkpoint: Path | None, device: str) -> tuple[TokenSets, TokenSets]:
    if kind == "random":
        return random_tokens(size, device)
    if checkpoint is None:
        raise UserError("--tokens real: give --checkpoint, the model.safetensors of a finished cell")
    return real_tokens(checkpoint, size.images, size.captions, device)


def _rows(
    images: TokenSets, captions: TokenSets, how: Transport, sample: float
) -> tuple[list[Row], dict[str, str]]:
    """The rows that can run here, and why the others cannot."""
    from poisonbench.defenses.otcclip.matcher import match
    from poisonbench.defenses.otcclip.solvers import solver_for

    longest_first = captions.at_rows(captions.length.argsort(descending=True))
    few, rows = _some(images, sample), _floors(images, captions)
    for backend in ("torch",) if images.tokens.device.type == "cpu" else ("torch", "triton"):
        chosen = how.model_copy(update={"backend": backend})
        rows.append(Row(f"match, {backend}", partial(match, images, captions, how=chosen)))
        rows.append(Row(f"of which bounds, {backend}", solver_for(images, longest_first, chosen).bounds))
    for method in ("sinkhorn", "log_sinkhorn"):
        brute = partial(_pot, few, captions, how.eps, how.tolerance, method)
        rows.append(Row(f"POT solve_batch, {method}", brute, len(few) / len(images)))
    handful = min(200, len(captions))
    rows.append(
        Row(
            "POT emd2, one by one",
            partial(_emd, images, captions, handful),
            handful / _pairs(images, captions),
        )
    )
    try:
        import geomloss  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
    except ImportError:
        return rows, {"geomloss": "not installed: pip install -e '.[benchmarks]'"}
    group = captions[:BATCH]
    share = len(group) / _pairs(images, captions)
    rows.append(Row("geomloss SamplesLoss", partial(_geomloss, images[:1], group, how.eps), share))
    return rows, {}


def _pairs(images: TokenSets, captions: TokenSets) -> int:
    return len(images) * len(captions)


def _some(images: TokenSets, sample: float) -> TokenSets:
    return images[: max(1, math.ceil(sample * len(images)))]


def _floors(images: TokenSets, captions: TokenSets) -> list[Row]:
    """The matrix products alone, in tiles whose results are overwritten."""
    import torch

    def row(name: str, dtype: torch.dtype) -> Row:
        visual, text = (side.tokens.flatten(0, 1).to(dtype) for side in (images, captions))
        return Row(f"products, {name}", partial(_products, visual, text))

    return [row("fp32", torch.float32), row("bf16", torch.bfloat16)]


def _products(visual: Tensor, text: Tensor) -> None:
    import torch

    # the widths that were fastest here: results stay in the cache of a core, or fill the GPU
    width = 1 << 16 if text.device.type == "cuda" else 128
    tile = visual.new_empty(len(visual), width)
    for columns in torch.split(text, width):
        out = tile if len(columns) == width else visual.new_empty(len(visual), len(columns))
        torch.mm(visual, columns.T, out=out)


def _pot(
    images: TokenSets, captions: TokenSets, eps: float, tolerance: float, method: str, *, double: bool = False
) -> Tensor:
    """Costs of all pairs by ``ot.batch.solve_batch``, flat: image by image."""
    import torch
    from ot.batch import solve_batch

    kind = torch.float64 if double else torch.float32
    root = math.sqrt(images.tokens.shape[1])  # POT looks at the L2 error, which is that much smaller than L1
    found = []
    for at in range(len(images)):
        visual, a = images.tokens[at].to(kind), images.mass[at].to(kind)
        for start in range(0, len(captions), BATCH):
            text, b = (
                captions.tokens[start : start + BATCH].to(kind),
                captions.mass[start : start + BATCH].to(kind),
            )
            cost = 1 - visual @ text.transpose(1, 2)
            # POT has no masks: padding gets a vanishing mass
            b = (b + 1e-12) / (b + 1e-12).sum(dim=1, keepdim=True)
            with cost.device:  # the unlogged method starts from ones wherever PyTorch makes them
                solved = solve_batch(
                    cost, reg=eps, a=a.expand(len(cost), -1), b=b, max_iter=5000, tol=tolerance / root, method=method,
                    grad="detach",
                )  # fmt: skip
            found.append((solved.plan * cost).sum(dim=(1, 2)))
    return torch.cat(found)


def _emd(images: TokenSets, captions: TokenSets, count: int) -> None:
    import ot

    for at in range(count):
        image, real = at % len(images), int(captions.length[at])
        cost = 1 - images.tokens[image].double() @ captions.tokens[at, :real].double().T
        ot.emd2([], [], cost.cpu().numpy())


def _geomloss(image: TokenSets, captions: TokenSets, eps: float) -> Tensor:
    """The entropic value by geomloss, whose cost |x - y|^2 / 2 is 1 - cos for unit vectors."""
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=math.sqrt(eps), debias=False, backend="tensorized")
    count = len(captions)
    tokens, mass = image.tokens.float().expand(count, -1, -1), image.mass.expand(count, -1)
    value: Tensor = loss(
        mass.contiguous(), tokens.contiguous(), captions.mass.contiguous(), captions.tokens.float()
    )
    return value


def _text(report: dict[str, Any]) -> str:
    floor = report["seconds"]["products, fp32"]
    rows = [
        {"": name, "seconds": f"{value:.3f}", "x fp32 products": f"{value / floor:.2f}"}
        for name, value in report["seconds"].items()
    ]
    rest = [f"{name}: {value}" for name, value in report.items() if name != "seconds"]
    return "\n".join([_markdown(rows), "", *rest])


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(
        [*lines, *("| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows)]
    )


if __name__ == "__main__":
    main()
