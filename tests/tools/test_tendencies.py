"""A tendency is seen where its rule says so, and nothing is judged that was not measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from tool_fakes import judged, kept, ran

from poisonbench.registry import attacks, defenses
from tools.literature import TENDENCIES
from tools.tendencies import NOT_MEASURED, main, page, verdict
from tools.tendencies import judged as judged_by

ROCLIP, CLEANCLIP, SAFECLIP, FILTERS, FINETUNE, AUGMENTED = TENDENCIES


@pytest.mark.parametrize("tendency", TENDENCIES, ids=lambda tendency: tendency.title)
def test_a_tendency_names_its_source_and_plugins_that_exist(tendency) -> None:
    assert "arXiv" in tendency.reported
    assert all(attacks().find(name) for name in tendency.attacks)
    assert all(defenses().find(name) for name in tendency.defenses)
    seen, rows = judged_by(tendency, [])
    assert set(seen) == {None} and {row[-1] for row in rows} == {NOT_MEASURED}


def seen(tendency, *cells) -> bool | None:
    """The verdict on the tendency's first cell."""
    return judged_by(tendency, judged(*cells))[0][0]


@pytest.mark.parametrize(
    ("tendency", "defended", "expected"),
    [
        (ROCLIP, {"asr": (10, 100), "top1": 0.3}, True),
        (ROCLIP, {"asr": (60, 100), "top1": 0.3}, False),
        (ROCLIP, {"asr": (10, 100), "top1": 0.4}, False),
        (CLEANCLIP, {"asr": (40, 100)}, True),
        (CLEANCLIP, {"asr": (10, 100)}, False),
        (FINETUNE, {"asr": (40, 100)}, True),
        (FINETUNE, {"asr": (3, 100), "top1": 0.3}, True),
        (FINETUNE, {"asr": (3, 100), "top1": 0.39}, False),
        (AUGMENTED, {"asr": (80, 100)}, True),
        (AUGMENTED, {"asr": (20, 100)}, False),
    ],
)
def test_a_rule_can_be_seen_and_not_seen(tendency, defended, expected) -> None:
    attack, defense = tendency.attacks[0], tendency.defenses[0]
    assert seen(tendency, ran(attack), ran(attack, defense, **defended)) is expected


@pytest.mark.parametrize(("left_out", "expected"), [(30, True), (75, False)])
def test_safeclip_is_compared_with_itself_on_the_patch(left_out: int, expected: bool) -> None:
    cells = [ran("backdoor_blended"), ran("backdoor_blended", "safeclip", neutralized=left_out)]
    assert seen(SAFECLIP, *cells) is None
    assert seen(SAFECLIP, *cells, ran(defense="safeclip", neutralized=80)) is expected


def test_filters_are_judged_at_low_rates_alone_and_even_where_the_attack_fails() -> None:
    assert seen(FILTERS, ran(defense="dao", auroc=0.99)) is None
    for auroc, expected in ((0.95, True), (0.7, False)):
        assert seen(FILTERS, ran(defense="dao", auroc=auroc, settings={"attack.rate": 0.003})) is expected


def test_a_dead_attack_or_other_settings_measure_nothing() -> None:
    dead = [ran(asr=(20, 100)), ran(defense="augment_only", asr=(15, 100))]
    _, rows = judged_by(AUGMENTED, judged(*dead))
    assert rows[0][-1] == "not measured: attack invalid"
    changed = {"recipe.epochs": 1}
    assert seen(AUGMENTED, ran(settings=changed), ran(defense="augment_only", settings=changed)) is None


def test_the_undefended_figure_is_of_the_same_seeds() -> None:
    cells = [
        ran(seed=10),
        ran(seed=11, asr=(70, 100)),
        ran(defense="roclip", seed=11, asr=(5, 100), top1=0.3),
    ]
    _, rows = judged_by(ROCLIP, judged(*cells))
    assert rows[0][2:5] == ["11", "70/100 = 0.700", "5/100 = 0.050"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([True, True], "yes"),
        ([False], "no"),
        ([None, None], "not measured"),
        ([True, False, True], "yes in 2 of 3 cells"),
        ([False, None], "no (1 of 2 cells not measured)"),
    ],
)
def test_verdicts_in_words(found: list[bool | None], said: str) -> None:
    assert verdict(found) == said


def test_the_page_shows_every_tendency_with_its_figures(tmp_path: Path) -> None:
    cells = [ran(), ran(defense="roclip", asr=(1, 100), top1=0.3)]
    out = tmp_path / "tendencies.md"
    done = CliRunner().invoke(main, [str(kept(tmp_path / "runs", *cells)), "--out", str(out)])
    assert done.exit_code == 0, done.output
    text = out.read_text()
    assert text == page(judged(*cells))
    assert all(f"## {tendency.title}\n" in text for tendency in TENDENCIES)
    assert f"| {ROCLIP.title} | yes (1 of 2 cells not measured) |" in text
    assert "90/100 = 0.900 | 1/100 = 0.010 | -0.010 | 0.750" in text
