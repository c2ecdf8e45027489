"""Fine-tuning on clean pairs, the baseline of every repair."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from pydantic import Field

from poisonbench.defense import Candidate, Defense, DefenseCard, Objective
from poisonbench.lab import Lab
from poisonbench.sweep import SweepConfig
from poisonbench.towers import Towers


class FineTune(Defense):
    """Go on with plain CLIP, but on the clean pairs alone; the option shrinks the weights and adds noise to them first.

    "MMCL only" among CleanCLIP's variants (Bansal et al., ICCV 2023); shrink-and-perturb is Ash and Adams
    (NeurIPS 2020), tried against poisoned CLIP by Verma et al. (arXiv 2311.14948) with a shrink of 0.95 and noise of 1e-4.
    """

    card = DefenseCard(
        title="fine-tuning",
        paper="arXiv:2303.03323",
        year=2023,
        track="repair",
        sees=("clean",),
        reconstruction="Learning rates are swept relative to the tier's, and the number of epochs is ours; so is that "
        "shrink-and-perturb spares the logit scale.",
    )

    class Config(SweepConfig):
        """The sweep, and what is done to the weights before it.

        Attributes:
            shrink: the weights are multiplied by it (1: not at all).
            perturb: standard deviation of the Gaussian noise that is added to them (0: none).
        """

        shrink: float = Field(1.0, gt=0, le=1)
        perturb: float = Field(0.0, ge=0)

    def repair(self, lab: Lab) -> Mapping[str, Candidate]:
        """Plain CLIP at every learning rate of the sweep, all from the same shrunk and perturbed weights."""
        begin = partial(shrink_and_perturb, lab=lab, shrink=self.config.shrink, perturb=self.config.perturb)
        recipes = self.config.recipes(lab.recipe)
        return {name: Candidate(Objective(), recipe, begin) for name, recipe in recipes.items()}


@torch.no_grad()
def shrink_and_perturb(towers: Towers, lab: Lab, shrink: float, perturb: float) -> None:
    """Every trainable weight w becomes shrink * w + perturb * N(0, 1); the logit scale, a temperature, is left alone.

    With a shrink of 1 and a perturbation of 0 nothing changes, to the last bit.
    """
    rng = lab.rng("perturb")
    for name, weight in towers.model.named_parameters():
        if weight.requires_grad and name != "logit_scale":
            weight.mul_(shrink)
            if perturb:
                weight.add_(torch.randn(weight.shape, generator=rng).to(weight), alpha=perturb)
