"""Does optimal transport choose better captions than the global cosine? ``python benchmarks/caption_choice.py CHECKPOINT ...``.

Every image is given the caption that a rule likes best, out of a pool that holds none of its own; counted is how often that is a
right one. Pool, entropy and text tokens vary one at a time around ``--pool`` 4,096, entropy 0.1 and all tokens. A quarter holds
the images whose own captions the model ranks alike in the pool, the best fits first: a defence re-captions the last.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import click
import torch
import torch.nn.functional as F
from caption_sample import Sample, Split, drawn
from torch import Tensor

from poisonbench.defenses.otcclip.bounds import relaxed
from poisonbench.defenses.otcclip.matcher import Transport, distances, match
from poisonbench.defenses.otcclip.scales import Running
from poisonbench.defenses.otcclip.token_sets import TokenSets
from poisonbench.errors import UserError
from poisonbench.evaluation.statistics import wilson
from poisonbench.towers import Features

Tokens = Literal["all", "without the end token", "last 4", "centred"]
POOLS, ENTROPIES, MIXTURES = (1024, 4096, 8192), (0.02, 0.1, 0.5), (0.25, 0.5, 0.75)
BLIND = 16
"""Captions, spread over the pool, on which the spread of the mixture's two terms is measured, as training does."""


@dataclass(frozen=True)
class Rule:
    """How a caption is chosen.

    Attributes:
        choice: least transport cost, least relaxed cost, largest cosine, or a mixture of cosine and transport similarity.
        pool: captions to choose from.
        eps: entropy of the plans.
        tokens: of the captions; ``centred`` takes the mean token of either side away from its tokens.
        beta: weight of the cosine in a mixture.
    """

    choice: Literal["cosine", "relaxed", "OT", "mixture"]
    pool: int
    eps: float = 0.1
    tokens: Tokens = "all"
    beta: float = 0.0

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.beta:g} cosine + {1 - self.beta:g} OT" if self.choice == "mixture" else self.choice


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--images", default=1024, show_default=True, type=click.IntRange(2), help="Of either split, at most."
)
@click.option(
    "--pool",
    default=4096,
    show_default=True,
    type=click.IntRange(BLIND),
    help="Around which the rest varies.",
)
@click.option("--pools", "several", is_flag=True, help=f"Pools of {POOLS} captions too.")
@click.option("--split", "splits", multiple=True, type=click.Choice(get_args(Split)), default=get_args(Split))
@click.option(
    "--all", "every_image", is_flag=True, help="Images that name no class too, judged by their kind."
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def main(
    checkpoints: tuple[Path, ...], images: int, pool: int, several: bool, splits: tuple[Split, ...],
    every_image: bool, threads: int, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Count right captions by rule, for the models in CHECKPOINTS (model.safetensors of finished cells)."""
    torch.set_num_threads(threads)
    rules = list(_rules(pool, POOLS if several else (pool,)))
    found: list[dict[str, Any]] = []
    try:
        for checkpoint in checkpoints:
            for split in splits:
                most = max(rule.pool for rule in rules)
                sample = drawn(checkpoint, split, images, most, device, every_image=every_image)
                head = {
                    "model": "--".join(checkpoint.resolve().parent.name.split("--")[:-1]),
                    "images": split,
                }
                found += [head | row for row in measured(sample, rules)]
    except UserError as error:
        raise click.UsageError(str(error)) from None
    click.echo(json.dumps(found, indent=1) if as_json else _markdown(found))


def measured(sample: Sample, rules: list[Rule]) -> Iterator[dict[str, Any]]:
    """A row per rule: for every notion of rightness the share of right choices, and how far it lies above the cosine's."""
    chosen = {rule: choose(sample, rule) for rule in rules}
    order = _ill_fit(sample).argsort(stable=True)
    for rule, index in chosen.items():
        by_cosine = chosen[Rule("cosine", rule.pool)]
        row: dict[str, Any] = asdict(rule) | {"choice": rule.name, "n": len(index)}
        for notion, right in sample.right.items():
            hits, reference = (_hits(right, at) for at in (index, by_cosine))
            around, above = wilson(int(hits.sum()), len(hits)), paired(hits, reference)
            row[notion] = {
                "hits": int(hits.sum()), "share": float(hits.float().mean()), "low": around.low, "high": around.high,
                "chance": float(right[:, : rule.pool].float().mean()), "above_cosine": above[0], "half_width": above[1],
                "quarters": [float(hits[part].float().mean()) for part in order.chunk(4)],
            }  # fmt: skip
        yield row


def choose(sample: Sample, rule: Rule) -> Tensor:
    """The caption that the rule gives every image: int64 (q,)."""
    images, text = sample.images, sample.captions[: rule.pool]
    cosine = images.embedding.float() @ text.embedding.float().T
    visual, captions = _sets(images, text, rule.tokens)
    how = Transport(eps=rule.eps)
    if rule.choice == "cosine":
        best = cosine.argmax(dim=1)
    elif rule.choice == "relaxed":
        best = relaxed(visual, captions, torch.float32, how.budget).argmin(dim=1)
    elif rule.choice == "OT":
        best = match(visual, captions, how=how).index[:, 0]
    else:
        scales, some = Running(), torch.arange(0, len(captions), len(captions) // BLIND, device=cosine.device)
        scales.look(cosine[:, some], 1 - distances(visual, captions.at_rows(some), how))
        best = match(visual, captions, prior=cosine, beta=rule.beta, scales=scales.now, how=how).index[:, 0]
    return best.cpu()


def paired(hits: Tensor, reference: Tensor) -> tuple[float, float]:
    """The mean difference of two bool (q,) about the same images, and the half width of its 95% normal interval."""
    difference = hits.double() - reference.double()
    return float(difference.mean()), 1.96 * float(difference.std()) / math.sqrt(len(difference))


def kept(mask: Tensor, tokens: Tokens) -> Tensor:
    """Which text tokens a rule compares, of real ones (p, n) whose last is the end token; at least one of each caption."""
    place, length = torch.arange(mask.shape[1], device=mask.device), mask.sum(dim=1, keepdim=True)
    if tokens == "without the end token":
        return mask & ((place < length - 1) | (length == 1))
    return mask & (place >= length - 4) if tokens == "last 4" else mask


def _rules(pool: int, pools: tuple[int, ...]) -> Iterator[Rule]:
    for size in sorted({pool, *pools}):
        yield from (Rule("cosine", size), Rule("relaxed", size), Rule("OT", size))
        yield from (Rule("mixture", size, beta=beta) for beta in MIXTURES)
    for rule in (Rule("OT", pool), Rule("mixture", pool, beta=0.5)):
        yield from (replace(rule, eps=eps) for eps in ENTROPIES if eps != rule.eps)
        yield from (replace(rule, tokens=tokens) for tokens in get_args(Tokens) if tokens != rule.tokens)


def _ill_fit(sample: Sample) -> Tensor:
    """Share of the pool that is nearer to an image, by cosine, than its own caption: (q,)."""
    image = sample.images.embedding.float()
    own = (image * sample.own.float()).sum(dim=1, keepdim=True)
    return (image @ sample.captions.embedding.float().T > own).float().mean(dim=1).cpu()


def _sets(images: Features, text: Features, tokens: Tokens) -> tuple[TokenSets, TokenSets]:
    mask = kept(text.mask, tokens)
    visual, words = images.tokens, text.tokens
    if tokens == "centred":
        visual, words = _centred(visual, images.mask), _centred(words, mask)
    return TokenSets.of(visual, images.mask), TokenSets.of(words, mask)


def _centred(tokens: Tensor, mask: Tensor) -> Tensor:
    return F.normalize(tokens.float() - tokens[mask].float().mean(dim=0), dim=-1)


def _hits(right: Tensor, index: Tensor) -> Tensor:
    return right.gather(1, index[:, None]).squeeze(1)


def _markdown(found: list[dict[str, Any]]) -> str:
    notions = [name for name, value in found[0].items() if isinstance(value, dict)]
    heads = ["model", "images", "n", "pool", "eps", "text tokens", "choice"]
    for notion in notions:
        heads += [f"right {notion} (95%)", "above cosine (95%)", "by quarter", "chance"]
    lines = [heads, ["---"] * len(heads)]
    for row in found:
        cells = [str(row[key]) for key in ("model", "images", "n", "pool", "eps", "tokens", "choice")]
        for seen in (row[notion] for notion in notions):
            cells.append(f"{seen['share']:.3f} ({seen['low']:.3f}-{seen['high']:.3f})")
            cells.append(f"{seen['above_cosine']:+.3f} ± {seen['half_width']:.3f}")
            cells.append(" ".join(f"{part:.2f}" for part in seen["quarters"]))
            cells.append(f"{seen['chance']:.3f}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
