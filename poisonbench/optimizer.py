"""The optimiser of every training run, and its state by parameter names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from poisonbench.tier import Recipe
from poisonbench.towers import Towers


def adamw(towers: Towers, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays only parameters of two or more dimensions (no biases, norms or logit scale)."""
    decayed = [p for p in towers.parameters() if p.requires_grad and p.ndim >= 2]
    plain = [p for p in towers.parameters() if p.requires_grad and p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, eps=1e-8, fused=True)


def optimizer_state(towers: Towers, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts as ``parameter/key``, on the CPU; parameters that were never moved have none."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in towers.model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(
    towers: Towers, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Restore what ``optimizer_state`` gave.

    Raises:
        KeyError: for a parameter that the model does not have.
    """
    parameters = dict(towers.model.named_parameters())
    optimizer.state.clear()
    for path, value in state.items():
        name, _, key = path.rpartition("/")
        optimizer.state[parameters[name]][key] = _laid_out(value, parameters[name])


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy on the parameter's device and in its memory format: the fused step reads both side by side."""
    if value.shape != parameter.shape:
        return value.clone().to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
