"""A tier: data, model and training recipe in one readable declaration.

Tiers are YAML files in ``poisonbench/tiers``; ``poisonbench show tier NAME`` prints one and
``--set recipe.epochs=20`` overrides a field.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from poisonbench.defense import ImageAugment, TextAugment
from poisonbench.errors import UserError, did_you_mean
from poisonbench.settings import Settings, validated

Precision = Literal["fp32", "bf16"]
Moment = Annotated[float, Field(ge=0, lt=1)]


class DataSpec(Settings):
    """Where pairs and tasks come from.

    Attributes:
        source: ``clipart`` (embedded), ``none`` (must be given with --data), a folder's path, ``hf:NAME``, or ``wds:SHARDS``.
        evaluation: ``clipart``, ``folder:PATH`` (one folder per class) or ``clip-benchmark:NAME``; the first is the headline.
        limit: use only the first so many training pairs (0: all), before poisoning.
        clean: share of a user's pairs that becomes the clean split.
        validation: share of a user's pairs that becomes the validation split.
    """

    source: str = "clipart"
    evaluation: tuple[str, ...] = ("clipart",)
    limit: int = Field(0, ge=0)
    clean: float = Field(0.1, ge=0, lt=0.5)
    validation: float = Field(0.05, ge=0, lt=0.5)


class ModelSpec(Settings):
    """The CLIP model.

    Attributes:
        name: an open_clip configuration.
        context: tokens per text, start and end included.
        trim_vocabulary: keep only the ids that occur in the data and classes (a small model's table would dwarf it).
    """

    name: str = "poisonbench-s"
    context: int = Field(16, ge=4, le=512)
    trim_vocabulary: bool = True


class Recipe(Settings):
    """How a model is trained; the same for every attack and defence of a tier.

    Attributes:
        epochs: passes over the data.
        batch: pairs per step.
        lr: peak learning rate of AdamW.
        weight_decay: on parameters of two or more dimensions.
        betas: AdamW's moments.
        warmup: share of the run with linearly rising learning rate; a cosine to zero follows.
        precision: of the towers' forward and backward, fp32 wherever bf16 would be emulated; losses are fp32.
        images: image augmentation (none, flip, mild, light, roclip, auto).
        texts: text augmentation (none, eda).
        threads: CPU threads of one cell.
    """

    epochs: int = Field(16, ge=1, le=1000)
    batch: int = Field(256, ge=2)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[Moment, Moment] = (0.9, 0.98)
    warmup: float = Field(0.05, ge=0, lt=1)
    precision: Precision = "bf16"
    images: ImageAugment = "flip"
    texts: TextAugment = "none"
    threads: int = Field(1, ge=1)


class Tier(Settings):
    """A named set of data, model and recipe, with the plugin fields that differ at this scale.

    Attributes:
        name: how the command line calls it.
        summary: one sentence for people.
        data: pairs and tasks.
        model: the CLIP model.
        recipe: the training.
        attacks: per attack, fields that replace its defaults at this tier (budgets and trigger sizes that work here).
        defenses: per defence, likewise (pool sizes scale with the data).
    """

    name: str
    summary: str
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    recipe: Recipe = Recipe()
    attacks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    defenses: dict[str, dict[str, Any]] = Field(default_factory=dict)


def tier_names() -> list[str]:
    """The names of the tiers that are shipped."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files("poisonbench.tiers").iterdir()
        if entry.name.endswith(".yaml")
    )


@cache
def load_tier(name: str) -> Tier:
    """The shipped tier ``name``, or the tier declared in the YAML file at that path.

    Raises:
        UserError: for an unknown name or a file that is not a valid tier.
    """
    if name in tier_names():
        text = files("poisonbench.tiers").joinpath(f"{name}.yaml").read_text()
    elif name.endswith((".yaml", ".yml")):
        text = _read(Path(name))
    else:
        raise UserError(f"unknown tier '{name}'; {did_you_mean(name, tier_names())}")
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"tier '{name}' is not valid YAML: {str(error).splitlines()[0]}") from None
    return validated(Tier, values if isinstance(values, dict) else {}, f"tier '{name}'")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"tier file {path} is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"cannot read tier file {path}: {error.strerror}") from None


def override(tier: Tier, changes: dict[str, Any]) -> Tier:
    """``tier`` with dotted fields replaced, for example {"recipe.epochs": 20}.

    Raises:
        UserError: for an unknown field or a value of the wrong type.
    """
    values = tier.model_dump()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        inside = values
        for parent in parents:
            if not isinstance(inside.get(parent), dict):
                raise UserError(f"--set {path}: no section '{parent}'; {did_you_mean(parent, inside)}")
            inside = inside[parent]
        inside[leaf] = value
    return validated(Tier, values, "--set")
