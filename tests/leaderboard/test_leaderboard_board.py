"""What the board says about records: numbers by hand, verdicts, and nothing dropped."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from board_fakes import TRACKS, failed, grid, provenance, record

from poisonbench.leaderboard import Board, boards
from poisonbench.leaderboard.entries import Entry
from poisonbench.records import PluginUse, Record


def only(records: list) -> Board:
    [board] = boards(records)
    return board


def entry(board: Board, defense: str, attack: str) -> Entry:
    [row] = [row for row in board.rows if row.plugin.name == defense]
    [place] = [place for place, column in enumerate(board.columns) if column.plugin.name == attack]
    return row.entries[place]


def test_numbers_over_seeds_are_those_computed_by_hand():
    board = only(
        [
            record(seed=10, top1=0.50),
            record(seed=11, top1=0.40),
            record(
                defense="otcclip",
                seed=10,
                asr=(1, 100),
                base=(1, 100),
                top1=0.45,
                neutralized=70,
                seconds=60.0,
            ),
            record(
                defense="otcclip",
                seed=11,
                asr=(4, 100),
                base=(0, 100),
                top1=0.39,
                neutralized=105,
                seconds=90.0,
            ),
        ]
    )
    found = entry(board, "otcclip", "backdoor_badnet")
    assert (found.asr.successes, found.asr.trials) == (5, 200)
    # Wilson by its formula, z = 1.96
    assert found.asr.wilson().low == pytest.approx(0.0107, abs=1e-4)
    assert found.asr.wilson().high == pytest.approx(0.0572, abs=1e-4)
    assert found.base.value == pytest.approx(1 / 200)
    assert found.gain == pytest.approx(4 / 200)
    half = (
        12.7062 * 0.06 / math.sqrt(2) / math.sqrt(2)
    )  # t(1) times the standard error of two values 0.06 apart
    assert found.zero_shot.value == pytest.approx(0.42)
    assert found.zero_shot.low == pytest.approx(0.42 - half, abs=1e-4)
    assert found.retention == pytest.approx(0.84 / 0.90)
    assert found.neutralised.value == pytest.approx(175 / 280)
    assert found.train_seconds == pytest.approx(75.0)
    assert found.seeds == (10, 11)


def test_one_seed_keeps_the_interval_over_concepts():
    shot = entry(only([record(top1=0.4)]), "none", "backdoor_badnet").zero_shot
    assert (shot.low, shot.high) == pytest.approx((0.38, 0.42))


def test_retention_compares_seeds_that_both_have():
    board = only(
        [record(seed=10, top1=0.5), record(seed=11, top1=0.1), record(defense="roclip", seed=10, top1=0.4)]
    )
    assert entry(board, "roclip", "backdoor_badnet").retention == pytest.approx(0.8)
    lonely = only([record(seed=10), record(defense="roclip", seed=11)])
    assert entry(lonely, "roclip", "backdoor_badnet").retention is None


def computed(found: Record, **origin: str) -> Record:
    """``found`` with another origin."""
    return found.model_copy(update={"provenance": found.provenance.model_copy(update=origin)})


def test_retention_compares_with_the_twin_of_the_same_precision_and_poisons():
    twins = [
        computed(record(top1=top1), precision=precision, poisoned_data=poisons, finished=finished)
        for top1, precision, poisons, finished in (
            (0.50, "fp32", "", "2026-11-01"),
            (0.10, "bf16", "", "2026-11-02"),
            (0.20, "fp32", "others", "2026-11-03"),
        )
    ]
    poisons = {"poisoned_data": ""}
    for defended, kept in (("fp32", 0.4 / 0.5), ("bf16", 0.4 / 0.1)):
        found = computed(record(defense="roclip", top1=0.4), precision=defended, **poisons)
        assert entry(only([*twins, found]), "roclip", "backdoor_badnet").retention == pytest.approx(kept)
    strange = computed(record(defense="roclip"), poisoned_data="strange")
    assert entry(only([*twins, strange]), "roclip", "backdoor_badnet").retention is None


@pytest.mark.parametrize(
    ("verdicts", "state", "remark"),
    [
        ((True, True), "valid", ""),
        ((False, False), "invalid", "attack invalid"),
        ((True, False), "invalid", "attack invalid (seed 11)"),
        ((None, None), "unjudged", "twin not run"),
        ((True, None), "unjudged", "twin not run (seed 11)"),
    ],
)
def test_one_seed_without_a_working_attack_spoils_the_pooled_number(verdicts, state, remark):
    board = only([record(defense="otcclip", seed=10 + i, valid=valid) for i, valid in enumerate(verdicts)])
    found = entry(board, "otcclip", "backdoor_badnet")
    assert (found.verdict, found.remark, found.ranked) == (state, remark, state == "valid")


def test_a_failed_cell_says_why_and_a_failed_seed_does_not_hide_the_others():
    board = only([record(), failed("targeted", "none", 10, "loss is not a number")])
    assert entry(board, "none", "targeted").remark == "failed: loss is not a number"
    partly = entry(
        only([record(seed=10), failed("backdoor_badnet", "none", 11, "killed")]), "none", "backdoor_badnet"
    )
    assert partly.seeds == (10,)
    assert partly.failures == ("seed 11 failed: killed",)


def test_attacks_that_most_defences_have_met_come_first():
    met = [record("targeted", "roclip"), record("targeted", "otcclip"), record("none", "roclip")]
    board = only([*met, record("backdoor_badnet", "roclip")])
    assert [column.plugin.name for column in board.columns] == ["targeted", "backdoor_badnet", "none"]


def test_every_combination_has_an_entry_and_both_controls_are_always_there():
    board = only([record("backdoor_badnet", "roclip"), record("targeted", "otcclip")])
    assert [column.plugin.name for column in board.columns] == ["backdoor_badnet", "targeted", "none"]
    assert {row.plugin.name for row in board.rows} == {"none", "roclip", "otcclip"}
    for defense, attack in itertools.product(
        ("none", "roclip", "otcclip"), ("backdoor_badnet", "targeted", "none")
    ):
        ran = (defense, attack) in {("roclip", "backdoor_badnet"), ("otcclip", "targeted")}
        assert (entry(board, defense, attack).verdict == "not run") is not ran


def test_a_configuration_is_a_row_or_column_of_its_own_labelled_by_what_differs():
    board = only(
        [
            record(defense="roclip", defense_config={"every": 2, "pool": 64}),
            record(defense="roclip", defense_config={"every": 3, "pool": 64}),
            record("targeted", attack_config={"target": "face", "rate": 0.01}),
            record("targeted", attack_config={"target": "vegetable", "rate": 0.01}),
        ]
    )
    assert [row.label for row in board.rows if row.plugin.name == "roclip"] == ["every=2", "every=3"]
    labels = [column.label for column in board.columns if "target" in column.plugin.config]
    assert labels == ["target=face", "target=vegetable"]


def test_a_variant_is_a_column_of_its_own_named_with_a_colon():
    plain, striped = (
        PluginUse(name="backdoor_blended", variant=variant, config={"ratio": ratio}, title="Blended")
        for variant, ratio in (("", 0.2), ("stripes", 0.03))
    )
    board = only([record(attack=plain.name).model_copy(update={"attack": use}) for use in (striped, plain)])
    names = [(column.plugin.full_name, column.plugin.full_title, column.label) for column in board.columns]
    assert names[:2] == [
        ("backdoor_blended", "Blended", ""),
        ("backdoor_blended:stripes", "Blended (stripes)", ""),
    ]


def test_another_tier_recipe_or_data_is_another_board():
    other = record(provenance=provenance("ffff", 10).model_copy(update={"data": "other"}))
    found = boards([record(), record(tier="smoke"), record(recipe={"epochs": 20}), other])
    assert [(board.tier, len(board.records)) for board in found] == [("clipart", 1)] * 3 + [("smoke", 1)]
    labels = " ".join(board.label for board in found)
    assert "recipe.epochs=20" in labels
    assert "fingerprint=other" in labels
    assert found[-1].label == ""


def test_the_latest_record_of_a_seed_counts_and_older_ones_stay_in_sight():
    old = record(asr=(10, 100), provenance=provenance("aaaa", 10, finished="2026-01-01T00:00:00Z"))
    new = record(asr=(80, 100), provenance=provenance("bbbb", 10, finished="2026-02-01T00:00:00Z"))
    found = entry(only([new, old]), "none", "backdoor_badnet")
    assert found.asr.successes == 80
    assert found.superseded == (old,)


def test_tracks_have_sections_of_their_own_with_the_baselines_in_each():
    repair = PluginUse(name="cleanclip", config={}, track="repair")
    board = only([*grid(), record(defense="cleanclip").model_copy(update={"defense": repair})])
    assert [section.track for section in board.sections] == ["pre-training", "repair"]
    for section in board.sections:
        assert [row.plugin.name for row in section.baselines] == ["none", "augment_only"]
    assert (
        {row.plugin.name for row in board.sections[0].rows}
        == {"otcclip", "roclip"}
        == {name for name, track in TRACKS.items() if track == "pre-training"}
    )


def test_a_useless_model_is_not_ranked_above_a_useful_one():
    twins = [record(top1=0.5)]
    broken = record(defense="roclip", asr=(0, 100), base=(0, 100), top1=0.05)
    useful = record(defense="otcclip", asr=(3, 100), base=(1, 100), top1=0.48)
    [section] = only([*twins, broken, useful]).sections
    assert [row.plugin.name for row in section.rows] == ["otcclip", "roclip"]


def test_the_worst_case_needs_every_attack():
    def worst(records):
        return next(row.worst for row in only(records).rows if row.plugin.name == "otcclip")

    badnet = record(defense="otcclip", asr=(5, 100), base=(2, 100))
    targeted = record("targeted", "otcclip", asr=(9, 100), base=(2, 100))
    assert worst([badnet, targeted]) == pytest.approx(0.07)
    assert worst([badnet, record("targeted")]) is None
    assert worst([badnet, targeted.model_copy(update={"valid": False})]) is None


def test_the_worst_case_is_over_the_attacks_that_half_of_the_defences_have_met():
    everyone = [record(defense=name, asr=(5, 100), base=(2, 100)) for name in ("none", "roclip", "otcclip")]
    rare = record("targeted", "otcclip", asr=(90, 100), base=(2, 100))
    rows = only([*everyone, rare]).rows
    assert [row.worst for row in rows] == pytest.approx([0.03, 0.03, 0.03])
    met_by_two = only([*everyone, rare, record("targeted", asr=(95, 100))]).rows
    assert {row.plugin.name: row.worst is None for row in met_by_two} == {
        "none": False, "roclip": True, "otcclip": False,
    }  # fmt: skip


def test_the_order_of_records_does_not_matter():
    records = grid()
    shuffled = random.Random(0).sample(records, len(records))
    assert boards(shuffled) == boards(records)
