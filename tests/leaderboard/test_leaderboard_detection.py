"""What filters and detectors found, on the page and in the terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from board_fakes import record
from reader import Page, cell
from rich.console import Console

from poisonbench.leaderboard import render
from poisonbench.records import Detection, Record, Screening
from poisonbench.tables import in_full

FOUND = Detection(
    auroc=0.9,
    average_precision=0.4,
    recall={"1": 0.2, "2": 0.3, "5": 0.5, "10": 0.75},
    removed=700,
    removed_poisons=105,
)
NO_POISON = Detection(removed=700, removed_poisons=0)
SCREENED = Screening(auroc=0.8, false_positive_rate=0.04, asr_at_threshold=0.3, clean=1000, attacked=100)


def page(records: list[Record], tmp_path: Path) -> Page:
    return Page(render(records, tmp_path).read_text(encoding="utf-8"))


def terminal(one: Record) -> str:
    screen = StringIO()
    Console(file=screen, width=200).print(in_full(one))
    return " ".join(screen.getvalue().split())


def test_a_filters_auroc_stands_below_the_poisons_that_it_removed(tmp_path: Path) -> None:
    seeds = [FOUND, FOUND.model_copy(update={"auroc": 0.8})]
    records = [
        record(defense="dao", seed=seed, neutralized=105, detection=one) for seed, one in enumerate(seeds)
    ]
    row = page([record(seed=0), record(seed=1), *records], tmp_path).rows()["dao dao"]
    assert cell(row, "0-poison").text == "75.0% 210 / 280 AUROC 0.850"


def test_a_detectors_auroc_and_false_positives_stand_below_what_it_lets_through(tmp_path: Path) -> None:
    row = page([record(), record(defense="bdetclip", asr=(30, 100), screening=SCREENED)], tmp_path).rows()
    assert cell(row["bdetclip bdetclip"], "0-asr").text.endswith("30 / 100 AUROC 0.800 flags 4.0% clean")
    assert "AUROC" not in cell(row["undefended none"], "0-asr").text


def test_the_records_on_the_page_have_all_of_it(tmp_path: Path) -> None:
    records = [record(defense="dao", detection=FOUND), record(defense="bdetclip", screening=SCREENED)]
    text = " ".join(page(records, tmp_path).root.text.split())
    assert "700 pairs removed, 105 of them poisoned; AUROC 0.900, average precision 0.400" in text
    assert "recall@1% 20.0%" in text and "recall@10% 75.0%" in text
    assert "4.0% of 1000 clean inputs flagged; AUROC 0.800, ASR left 30.0%" in text


def test_the_terminal_shows_what_was_found_and_what_finding_cost() -> None:
    one = record(defense="dao", detection=FOUND, screening=SCREENED)
    assert one.cost is not None
    text = terminal(one.model_copy(update={"cost": one.cost.model_copy(update={"curation_seconds": 40.0})}))
    assert "AUROC 0.900, AP 0.400" in text
    assert "20.0% / 30.0% / 50.0% / 75.0%" in text
    assert "700 rows, 105 of them poisoned" in text
    assert "4.0% of 1,000, AUROC 0.800, n=100" in text
    assert "40.0 s of it, before the loop" in text


def test_without_poison_or_attack_only_the_losses_are_shown(tmp_path: Path) -> None:
    blank = Screening(false_positive_rate=0.04, clean=1000, attacked=0)
    one = record("none", "dao", detection=NO_POISON, screening=blank)
    for text in (terminal(one), page([one], tmp_path).root.text):
        assert "AUROC 0" not in text and "None" not in text
    assert "700 rows, 0 of them poisoned" in terminal(one)
    assert "4.0% of 1,000" in terminal(one)
