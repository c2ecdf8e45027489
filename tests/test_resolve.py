"""From names and overrides to cells: what wins, what is refused, and what an identity depends on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
import yaml

from poisonbench.arguments import parse_seeds, parse_settings, split_names
from poisonbench.errors import UserError
from poisonbench.resolve import Request, resolve
from poisonbench.source import source_hash
from poisonbench.tier import load_tier


def one(**changes: object) -> Request:
    return Request(**{"attacks": ("backdoor_badnet",), "tier": "smoke", "device": "cpu", **changes})  # type: ignore[arg-type]


def test_a_plugins_defaults_give_way_to_the_tier_and_the_tier_to_set() -> None:
    at_tier = load_tier("smoke").attacks["backdoor_badnet"]
    [cell] = resolve(one(settings={"attack.rate": 0.125}))
    assert cell.attack.config["rate"] == 0.125
    assert cell.attack.config["size"] == at_tier["size"]
    assert cell.attack.config["pattern"] == "checker"


def test_set_reaches_the_tier() -> None:
    [cell] = resolve(one(settings={"recipe.epochs": 20, "data.limit": 64, "model.name": "RN50"}))
    assert (cell.tier.recipe.epochs, cell.tier.data.limit, cell.tier.model.name) == (20, 64, "RN50")


def test_set_reaches_every_named_plugin_that_has_the_field() -> None:
    without, with_rate = resolve(one(attacks=("none", "backdoor_badnet"), settings={"attack.rate": 0.125}))
    assert without.attack.config == {}
    assert with_rate.attack.config["rate"] == 0.125


def test_several_names_and_seeds_make_a_grid_without_repeats() -> None:
    request = one(
        attacks=("none", "backdoor_badnet", "none"), defenses=("none", "augment_only"), seeds=(0, 1, 0)
    )
    found = [(cell.attack.name, cell.defense.name, cell.seed) for cell in resolve(request)]
    assert len(found) == len(set(found)) == 8


def test_all_names_every_plugin() -> None:
    names = {cell.attack.name for cell in resolve(one(attacks=("all",)))}
    assert {"none", "backdoor_badnet", "targeted"} <= names


def test_a_variant_is_its_preset_on_top_of_the_plugins_fields() -> None:
    plain, striped = resolve(one(attacks=("backdoor_blended", "backdoor_blended:stripes")))
    assert (plain.attack.name, plain.attack.variant) == ("backdoor_blended", "")
    assert (striped.attack.name, striped.attack.variant) == ("backdoor_blended", "stripes")
    assert striped.attack.full_name == "backdoor_blended:stripes"
    assert striped.attack.config["picture"] == "stripes" != plain.attack.config["picture"]
    assert striped.attack.config["rate"] == plain.attack.config["rate"], (
        "the tier's fields are below the preset"
    )
    assert striped.identity != plain.identity


def test_the_preset_beats_the_tier_the_tiers_variant_beats_the_preset_and_set_beats_all(
    tmp_path: Path,
) -> None:
    fields = {"ratio": 0.9, "rate": 0.04, "captions": "templates"}
    at_tier = {"backdoor_blended": fields, "backdoor_blended:stripes": {"rate": 0.03}}
    request = one(attacks=("backdoor_blended:stripes",), tier=_tier_file(tmp_path, attacks=at_tier))
    [cell] = resolve(request)
    assert cell.attack.config["captions"] == "templates"
    assert cell.attack.config["ratio"] == 0.03, "the preset's own"
    assert cell.attack.config["rate"] == 0.03
    [cell] = resolve(one(attacks=request.attacks, tier=request.tier, settings={"attack.rate": 0.1}))
    assert cell.attack.config["rate"] == 0.1


def test_all_takes_the_default_of_each_and_all_variants_every_one() -> None:
    defaults = [cell.attack for cell in resolve(one(attacks=("all",)))]
    assert {attack.variant for attack in defaults} == {""}
    every = {cell.attack.full_name for cell in resolve(one(attacks=("all:variants",)))}
    presets = {
        "backdoor_blended:noise",
        "backdoor_wanet:smooth",
        "text_mmpoison:one_image",
        "targeted:varied",
    }
    assert {attack.name for attack in defaults} | presets <= every


def test_data_and_tasks_can_be_replaced() -> None:
    [cell] = resolve(one(data="my/folder", evaluation="folder:a,clip-benchmark:b"))
    assert cell.tier.data.source == "my/folder"
    assert cell.tier.data.evaluation == ("folder:a", "clip-benchmark:b")


def test_a_comma_in_a_path_is_no_end_of_a_task() -> None:
    [cell] = resolve(one(evaluation="folder:a, b/c,clipart, folder:d,e,clip-benchmark:b"))
    assert cell.tier.data.evaluation == ("folder:a, b/c", "clipart", "folder:d,e", "clip-benchmark:b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attacks": ("backdoor_badnett",)},
            "unknown attack 'backdoor_badnett'; did you mean 'backdoor_badnet'",
        ),
        (
            {"attacks": ("backdoor_blended:stripe",)},
            "unknown variant 'stripe' of attack 'backdoor_blended'; did you mean 'stripes'",
        ),
        ({"attacks": ("none:strong",)}, "unknown variant 'strong' of attack 'none'; 'none' has no variants"),
        ({"attacks": ("backdoor_blended:",)}, "unknown variant '' of attack 'backdoor_blended'"),
        ({"defenses": ("augment",)}, "unknown defense 'augment'; did you mean 'augment_only'?"),
        ({"tier": "smoek"}, "unknown tier 'smoek'; did you mean 'smoke'?"),
        ({"tier": "missing.yaml"}, "cannot read tier file missing.yaml"),
        ({"settings": {"attack.rat": 0.1}}, "did you mean 'rate'?"),
        ({"settings": {"attack.rate.x": 0.1}}, "'rate' has no fields of its own"),
        ({"settings": {"attack.rate": "much"}}, "attack 'backdoor_badnet': field 'rate'"),
        ({"settings": {"attack.rate": 0.9}}, "less than or equal to 0.2"),
        ({"settings": {"recipe.epoch": 2}}, "did you mean 'epochs'?"),
        ({"settings": {"recipe.epochs": 2.5}}, "field 'recipe.epochs'"),
        (
            {"settings": {"recpie.epochs": 2}},
            "--set recpie.epochs: no section 'recpie'; did you mean 'recipe'?",
        ),
        ({"settings": {"epochs": 2}}, "no section 'epochs'"),
        ({"settings": {"recipe": 2}}, "recipe.FIELD=VALUE"),
        ({"attacks": ()}, "--attack: name one"),
        ({"tier": "cc3m-rn50"}, "give it some, as in --data"),
        ({"device": "gpu"}, "--device gpu"),
        ({"data": " "}, "--data is empty; give a folder"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_the_mend(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(one(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("defense", "split"), [("cleanclip", "validation"), ("cleanclip", "clean"), ("bdetclip", "clean")]
)
def test_a_split_that_a_defence_needs_must_not_be_empty(tmp_path: Path, defense: str, split: str) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,caption\n")
    settings = {f"data.{split}": 0}
    with pytest.raises(
        UserError, match=rf"defense '{defense}' needs {split} pairs.*--set data\.{split}=0\.05"
    ):
        resolve(one(defenses=("otcclip", defense), data=str(tmp_path), settings=settings))
    assert resolve(one(defenses=("otcclip",), data=str(tmp_path), settings=settings))
    assert resolve(one(defenses=(defense,), settings=settings)), "the embedded splits are not made by shares"


def test_a_wrong_field_in_a_tiers_file_is_blamed_on_the_tier(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="tier 'mine', attack 'backdoor_badnet': unknown field 'rat'; did you mean 'rate'"
    ):
        resolve(one(tier=_tier_file(tmp_path, attacks={"backdoor_badnet": {"rat": 0.1}})))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"attacks": {"backdoor_badnett": {"rate": 0.1}}}, "unknown attack 'backdoor_badnett'; did you mean"),
        ({"defenses": {"roclop:x": {}}}, "unknown defense 'roclop'; did you mean 'roclip'"),
    ],
)
def test_a_tiers_fields_for_a_plugin_that_does_not_exist_are_refused(
    tmp_path: Path, section: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=f"tier 'mine': {message}"):
        resolve(one(tier=_tier_file(tmp_path, **section)))


def test_a_tiers_field_for_a_variant_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    tier = _tier_file(tmp_path, attacks={"backdoor_badnet:strips": {"rate": 0.1}})
    with pytest.raises(UserError, match=r"tier 'mine': unknown variant 'strips'.*did you mean 'stripes'"):
        resolve(one(tier=tier))


def test_a_tier_whose_name_cannot_name_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names folders"):
        resolve(one(tier=_tier_file(tmp_path, name="../up")))


def test_no_gpu_is_an_error_for_cuda_and_a_reason_to_take_the_cpu_for_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch finds no GPU here"):
        resolve(one(device="cuda"))
    assert resolve(one(device="auto"))[0].device == "cpu"


def test_the_identity_follows_every_setting_and_nothing_else(tmp_path: Path) -> None:
    base = resolve(one())[0].identity
    assert resolve(one())[0].identity == base
    for change in (
        {"settings": {"recipe.lr": 0.5}},
        {"settings": {"attack.rate": 0.1}},
        {"seeds": (1,)},
        {"data": "x"},
    ):
        assert resolve(one(**change))[0].identity != base

    mine = resolve(one(tier=_tier_file(tmp_path / "a")))[0].identity
    other_plugin = {"defenses": {"roclip": {"pool": 7}}, "summary": "Other words."}
    assert resolve(one(tier=_tier_file(tmp_path / "b", **other_plugin)))[0].identity == mine


def test_the_source_hash_follows_a_plugins_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hashed_one.py").write_text("class One: pass\n")
    package = tmp_path / "hashed_two"
    package.mkdir()
    (package / "__init__.py").write_text("from hashed_two.inner import Two\n")
    (package / "inner.py").write_text("class Two: pass\n")
    (package / "helper.py").write_text("")
    one_class = importlib.import_module("hashed_one").One
    two_class = importlib.import_module("hashed_two").Two

    before = source_hash(one_class), source_hash(two_class)
    (package / "helper.py").write_text("x = 1\n")
    assert source_hash(one_class) == before[0]
    assert source_hash(two_class) != before[1]
    (tmp_path / "hashed_one.py").write_text("class One: y = 2\n")
    assert source_hash(one_class) != before[0]
    for name in ("hashed_one", "hashed_two", "hashed_two.inner"):
        del sys.modules[name]


def test_plugins_of_the_suite_do_not_share_a_source_hash() -> None:
    plain, augmented = resolve(one(defenses=("none", "augment_only")))
    assert plain.source != augmented.source


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("0.02", 0.02),
        ("true", True),
        ("null", None),
        ("[a, b]", ["a", "b"]),
        ("vegetable", "vegetable"),
        ("ground vehicle", "ground vehicle"),
        ("'20'", "20"),
        ("", ""),
        ("a=b", "a=b"),
        ("shop #1", "shop #1"),
        ("'shop #1'", "shop #1"),
    ],
)
def test_values_are_what_they_look_like(text: str, value: object) -> None:
    assert parse_settings([f"attack.x={text}"]) == {"attack.x": value}


@pytest.mark.parametrize("text", ["recipe.epochs", "=3", "recipe.epochs=[1,", "attack.target=2020-13-45"])
def test_a_setting_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--set"):
        parse_settings([text])


def test_words_that_yaml_takes_for_something_else_are_to_be_quoted() -> None:
    with pytest.raises(UserError, match=r"field 'target'.*quoted, as in '\"no\"'"):
        resolve(one(settings=parse_settings(["attack.target=no"])))


@pytest.mark.parametrize("text", ["recipe.lr=yes", "recipe.epochs=on", "attack.rate=true", "defense.pool=no"])
def test_yes_and_no_are_no_numbers(text: str) -> None:
    field = text.partition("=")[0].partition(".")[2]
    with pytest.raises(UserError, match=f"{field}': input should be a number"):
        resolve(one(defenses=("otcclip",), settings=parse_settings([text])))


def test_moments_of_the_optimiser_and_seeds_have_bounds() -> None:
    with pytest.raises(UserError, match=r"recipe\.betas"):
        resolve(one(settings={"recipe.betas": [0.9, 1.5]}))
    with pytest.raises(UserError, match="seed -1"):
        resolve(one(seeds=(-1,)))


def test_scientific_notation_is_a_number() -> None:
    [cell] = resolve(one(settings=parse_settings(["recipe.lr=1e-4"])))
    assert cell.tier.recipe.lr == 1e-4


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0,1,2", [0, 1, 2]), ("0-2", [0, 1, 2]), ("0-1, 7", [0, 1, 7])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "2-0", "1,,2", "1.5", "0-99999999"])
def test_wrong_seeds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_names_may_be_repeated_or_separated_by_commas() -> None:
    assert split_names(["a,b", " c ", ""]) == ["a", "b", "c"]


def _tier_file(folder: Path, **changes: object) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / "tier.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "summary": "Words.", **changes}))
    return str(path)
