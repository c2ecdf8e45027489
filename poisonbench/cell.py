"""A cell: one attack against one defence on one tier with one seed, and its identity."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field

from poisonbench.arguments import full_name
from poisonbench.settings import Settings
from poisonbench.tier import Tier

PLACES = ("source", "evaluation")
"""Fields of a tier's data that say where they are."""


class PluginChoice(Settings):
    """A plugin by name, with its full validated configuration and the name of the preset that it was made from."""

    name: str
    config: dict[str, Any] = Field(default_factory=dict)
    variant: str = ""

    @property
    def full_name(self) -> str:
        """How the command line calls it."""
        return full_name(self.name, self.variant)


class Cell(Settings):
    """Everything that decides a result, resolved: no default is left to be filled in later.

    Attributes:
        attack: the attack with its full configuration.
        defense: the defence with its full configuration.
        tier: data, model and recipe.
        data: what tells its data from other data; where they lie does not.
        seed: of everything random in the cell.
        device: "cpu" or "cuda".
        source: hash of the code that shapes the result (core, model configurations and the two plugins).
    """

    attack: PluginChoice
    defense: PluginChoice
    tier: Tier
    data: str = ""
    seed: int = Field(0, ge=0)
    device: str = "cpu"
    source: str = ""

    @property
    def identity(self) -> str:
        """A 12-digit hash over the whole cell but where its data lie; it names the folder and the resume key."""
        whole = self.model_dump(mode="json")
        return _hash({**whole, "tier": without_places(whole["tier"])})

    @property
    def question(self) -> str:
        """What was asked, whatever code and data answer it: the identity without them."""
        return self.model_copy(update={"source": "", "data": ""}).identity

    @property
    def folder(self) -> str:
        """The name of the cell's folder under the runs folder."""
        return f"{self.attack.name}--{self.defense.name}--{self.tier.name}--s{self.seed}--{self.identity}"


def twin_key(attack: dict[str, Any], tier: dict[str, Any], seed: int) -> str:
    """What an undefended twin shares with a defended cell: attack with configuration, tier without defence fields, and seed.

    Whether they had the same data is for their fingerprints to tell.
    """
    shared = {key: value for key, value in without_places(tier).items() if key != "defenses"}
    attack = {key: value for key, value in attack.items() if key != "variant"}
    return _hash({"attack": attack, "tier": shared, "seed": seed})


def without_places(tier: dict[str, Any]) -> dict[str, Any]:
    """A tier's fields without where its data lie: the same data may be elsewhere, and others in the same place."""
    data = tier.get("data")
    if not isinstance(data, dict):
        return tier
    return {**tier, "data": {key: value for key, value in data.items() if key not in PLACES}}


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
