"""A sweep of learning rates: what the repairs that fine-tune the undefended model have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from poisonbench.defense import DefenseConfig

if TYPE_CHECKING:
    from poisonbench.tier import Recipe


class SweepConfig(DefenseConfig):
    """How a repair trains on the clean split, once per learning rate.

    Learning rates are multiples of the tier's own, since the published ones differ by two orders of magnitude with model
    and data: CleanCLIP takes 1e-5, its replication (arXiv 2311.14948) sweeps 5e-5 to 1e-3.

    Attributes:
        lrs: peak learning rates as multiples of the tier's, ascending; one candidate each, weakest first.
        epochs: over the clean split.
        batch: pairs per step, or None for the tier's.
        warmup: share of the run with a linearly rising learning rate.
        weight_decay: of AdamW, or None for the tier's.
    """

    lrs: tuple[float, ...] = Field((0.1, 0.3, 1.0, 3.0), min_length=1)
    epochs: int = Field(8, ge=1, le=1000)
    batch: int | None = Field(None, ge=2)
    warmup: float = Field(0.05, ge=0, lt=1)
    weight_decay: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _weakest_first(self) -> Self:
        rising = all(low < high for low, high in zip(self.lrs, self.lrs[1:], strict=False))
        if self.lrs[0] <= 0 or not rising:
            raise ValueError(
                "lrs must be above 0 and ascending: the candidates run from weakest to strongest"
            )
        return self

    def recipes(self, tier: Recipe) -> dict[str, Recipe]:
        """The recipe of every candidate by name ("lr 5e-05"), ascending by learning rate."""
        shared = {"epochs": self.epochs, "batch": self.batch or tier.batch, "warmup": self.warmup}
        if self.weight_decay is not None:
            shared["weight_decay"] = self.weight_decay
        rates = [tier.lr * factor for factor in self.lrs]
        return {f"lr {rate:.6g}": tier.model_copy(update=shared | {"lr": rate}) for rate in rates}
