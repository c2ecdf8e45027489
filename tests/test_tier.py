"""Tiers: every shipped one can be used as it is, and a wrong field is named together with the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poisonbench.errors import UserError
from poisonbench.registry import attacks, defenses
from poisonbench.settings import validated
from poisonbench.tier import Tier, load_tier, override, tier_names
from poisonbench.towers import image_side

TIERS = tier_names()
each_tier = pytest.mark.parametrize("name", TIERS)


@each_tier
def test_a_shipped_tier_loads_under_its_own_name(name: str) -> None:
    tier = load_tier(name)
    assert tier.name == name and tier.summary.endswith(".")
    assert Tier.model_validate(tier.model_dump()) == tier


@each_tier
def test_what_a_tier_says_of_plugins_fits_their_configurations(name: str) -> None:
    tier = load_tier(name)
    assert tier.attacks and tier.defenses
    for plugin, values in tier.attacks.items():
        validated(attacks().find(plugin)[0].Config, values, plugin)
    for plugin, values in tier.defenses.items():
        validated(defenses().find(plugin)[0].Config, values, plugin)


@each_tier
def test_the_model_of_a_tier_exists(name: str) -> None:
    assert image_side(load_tier(name).model.name) in (32, 224)


def test_there_are_tiers_for_a_laptop_and_for_a_large_gpu() -> None:
    assert {"smoke", "clipart", "cc3m-rn50"} <= set(TIERS)


def test_an_override_replaces_one_field_and_leaves_the_tier_alone() -> None:
    tier = load_tier("smoke")
    changed = override(tier, {"recipe.epochs": 7, "attacks.backdoor_badnet.rate": 0.1})
    assert changed.recipe == tier.recipe.model_copy(update={"epochs": 7})
    assert changed.attacks["backdoor_badnet"] == tier.attacks["backdoor_badnet"] | {"rate": 0.1}
    assert (changed.data, changed.model) == (tier.data, tier.model)
    assert load_tier("smoke").recipe.epochs == tier.recipe.epochs != 7


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("recipe.epoch", 3, "--set: unknown field 'recipe.epoch'; did you mean 'epochs'?"),
        ("recipes.epochs", 3, "--set recipes.epochs: no section 'recipes'; did you mean 'recipe'?"),
        ("summry", "x", "--set: unknown field 'summry'; did you mean 'summary'?"),
        ("recipe.epochs.more", 3, "no section 'epochs'"),
        ("recipe.epochs", "many", "--set: field 'recipe.epochs': input should be a valid integer"),
        ("recipe.epochs", 0, "--set: field 'recipe.epochs': input should be greater than or equal to 1"),
        ("recipe.lr", float("nan"), "--set: field 'recipe.lr'"),
        ("recipe.images", "flipp", "--set: field 'recipe.images': input should be 'none', 'flip'"),
        ("recipe", 3, "--set: field 'recipe'"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(field: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        override(load_tier("smoke"), {field: value})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_tier_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="unknown tier 'clip-art'; did you mean 'clipart'"):
        load_tier("clip-art")


def test_a_tier_of_ones_own_is_read_from_a_file_and_filled_with_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nsummary: Mine.\nrecipe: {epochs: 2}\n")
    tier = load_tier(str(file))
    assert (tier.name, tier.recipe.epochs, tier.recipe.batch) == (
        "mine",
        2,
        Tier(name="x", summary="").recipe.batch,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: mine\nsummary: x\nmodle: {}\n", "unknown field 'modle'; did you mean 'model'?"),
        (
            "name: mine\nsummary: x\nrecipe: {epoch: 1}\n",
            "unknown field 'recipe.epoch'; did you mean 'epochs'?",
        ),
        ("name: mine\n", "field 'summary': field required"),
        ("", "field 'name': field required"),
        ("- a list\n", "field 'name': field required"),
        ("name: [\n", "is not valid YAML"),
    ],
)
def test_a_wrong_tier_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        load_tier(str(file))
    assert message in str(refused.value) and str(file) in str(refused.value)
    assert "\n" not in str(refused.value)
