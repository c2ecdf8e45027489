"""What publishing leaves in the folder, and what it refuses."""

from __future__ import annotations

import json

import pytest
from board_fakes import record
from reader import Page, cell

from poisonbench.errors import UserError
from poisonbench.leaderboard import publish, published
from poisonbench.records import SCHEMA_VERSION, Record


def stored(found: Record, folder) -> tuple[Record, object]:
    """The record as a store keeps it: a file per cell, without what other cells say."""
    path = folder / found.provenance.config_hash / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found.model_dump_json(exclude={"valid"}))
    return found, path


def test_published_records_stay_when_others_come(tmp_path):
    out = tmp_path / "board"
    first = publish([stored(record(), tmp_path / "runs")], out)
    publish([stored(record(defense="otcclip"), tmp_path / "runs")], out)
    assert first == out / "index.html"
    assert len(list((out / "records").iterdir())) == 2
    assert {"undefended none", "OTCCLIP otcclip"} <= set(Page(first.read_text()).rows())


def test_the_copy_is_the_file_itself_and_the_page_links_to_it(tmp_path):
    found, path = stored(record(), tmp_path)
    text = publish([(found, path)], tmp_path / "board").read_text()
    [copy] = (tmp_path / "board" / "records").iterdir()
    assert copy.read_bytes() == path.read_bytes()
    links = [link.attributes["href"] for link in Page(text).root.all("a")]
    assert f"records/{copy.name}" in links


def test_validity_follows_from_the_twin_that_lies_beside(tmp_path):
    out, runs = tmp_path / "board", tmp_path / "runs"
    defended = record(defense="otcclip", asr=(1, 100))
    publish([stored(defended, runs)], out)
    row = Page((out / "index.html").read_text()).rows()["OTCCLIP otcclip"]
    assert "twin not run" in cell(row, "0-gain").text
    publish([stored(record(asr=(30, 100)), runs)], out)
    assert {one.valid for one in published(out / "records").values()} == {False}
    publish([stored(record(asr=(99, 100)), runs)], out)
    assert {one.valid for one in published(out / "records").values()} == {True}


@pytest.mark.parametrize("name", ["../../escape", "/etc/escape", "..", "a\x00b", "nul\n", "x" * 500])
def test_no_name_leaves_the_folder(tmp_path, name):
    bad = record()
    bad = bad.model_copy(update={"attack": bad.attack.model_copy(update={"name": name}), "tier": name})
    publish([stored(bad, tmp_path / "runs")], tmp_path / "board")
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "board"}
    [copy] = (tmp_path / "board" / "records").iterdir()
    assert copy.suffix == ".json"
    assert copy.name.isprintable()


def test_a_link_in_the_folder_is_replaced_and_not_followed(tmp_path):
    found, path = stored(record(), tmp_path / "runs")
    publish([(found, path)], tmp_path / "board")
    [copy] = (tmp_path / "board" / "records").iterdir()
    (tmp_path / "secret").write_text(path.read_text())
    copy.unlink()
    copy.symlink_to(tmp_path / "secret")
    publish([(found.model_copy(update={"seed": 10}), path)], tmp_path / "board")
    assert not copy.is_symlink()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "is not valid JSON"),
        ("{}", "field 'attack'"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1, "new": 1}), "upgrade poisonbench"),
    ],
)
def test_a_bad_record_is_refused_by_name_before_anything_is_written(tmp_path, text, complaint):
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        publish([stored(record(), tmp_path / "runs"), (record(seed=11), bad)], tmp_path / "board")
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "board").exists()


def test_a_bad_published_file_is_named_and_the_page_stays(tmp_path):
    page = publish([stored(record(), tmp_path / "runs")], tmp_path / "board")
    before = page.read_bytes()
    (tmp_path / "board" / "records" / "odd.json").write_text("{}")
    with pytest.raises(UserError, match=r"odd\.json"):
        publish([stored(record(seed=11), tmp_path / "runs")], tmp_path / "board")
    assert page.read_bytes() == before
    assert len(list((tmp_path / "board" / "records").iterdir())) == 2


def test_a_printed_record_with_its_verdict_loads_too(tmp_path):
    path = tmp_path / "printed.json"
    path.write_text(record(valid=True, asr=(3, 100)).model_dump_json())
    publish([(record(), path)], tmp_path / "board")
    [found] = published(tmp_path / "board" / "records").values()
    assert found.valid is False


def screened(values):
    values["screening"] = {"auroc": 0.5, "false_positive_rate": 0.1, "clean": 1, "attacked": 1}


ODD = {
    "more successes than trials": lambda values: values["asr"].update(successes=101),
    "value and base": lambda values: values["asr"].update(value=0.5),
    "seed": lambda values: values.update(seed=-1),
    "asr.successes": lambda values: values["asr"].update(successes=-1),
    "asr.trials": lambda values: values["asr"].update(successes=0, trials=0),
    "more poisons": lambda values: values["poison"].update(neutralized=999),
    "auroc and asr_at_threshold": screened,
    "auroc and average_precision": lambda values: values.update(
        detection={"auroc": 0.5, "removed": 1, "removed_poisons": 1}
    ),
    "must have a validation_accuracy": lambda values: values.update(frontier=[{"name": "lr 1"}]),
    "must have asr and base": lambda values: values.update(
        frontier=[{"name": "lr 1", "validation_accuracy": 0.5, "asr": 0.5}]
    ),
    "config.tier": lambda values: values["config"].update(tier="x"),
    "not Unicode": lambda values: values["attack"].update(title="\ud800"),
}


@pytest.mark.parametrize("complaint", ODD)
def test_numbers_that_cannot_be_are_refused_by_file_and_field(tmp_path, complaint):
    values = json.loads(record().model_dump_json(exclude={"valid"}))
    ODD[complaint](values)
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=complaint) as caught:
        publish([(record(), path)], tmp_path / "board")
    assert str(path) in str(caught.value)


def test_a_record_by_any_other_name_is_still_linked(tmp_path):
    out = tmp_path / "board"
    publish([stored(record(), tmp_path / "runs")], out)
    [copy] = (out / "records").iterdir()
    copy.rename(copy.with_name("a#b?c.json"))
    page = publish([], out)
    assert 'href="records/a%23b%3Fc.json"' in page.read_text()
