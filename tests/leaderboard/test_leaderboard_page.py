"""What the page shows, read from its HTML alone."""

from __future__ import annotations

import re

import pytest
from board_fakes import failed, grid, record
from reader import Page, cell

from poisonbench.errors import UserError
from poisonbench.leaderboard import render
from poisonbench.records import Failure, PluginUse, Record, RepairCandidate

HOSTILE = "\"><script>alert('x')</script><img src=https://evil.example/a.png onerror=alert(1)>{{ 7*7 }}&amp;"


def page(records: list[Record], tmp_path) -> Page:
    return Page(render(records, tmp_path).read_text(encoding="utf-8"))


def test_numbers_are_on_the_page_as_text_and_as_sortable_values(tmp_path):
    defended = record(defense="otcclip", asr=(5, 200), base=(1, 200), top1=0.38, neutralized=105, seconds=245)
    row = page([record(top1=0.40), defended], tmp_path).rows()["OTCCLIP otcclip"]
    assert cell(row, "0-asr").text == "2.5% 1.1–5.7 5 / 200"
    assert cell(row, "0-gain").text == "+2.0 base 0.5%"
    assert float(cell(row, "0-gain").attributes["data-value"]) == pytest.approx(0.02)
    assert cell(row, "0-zero-shot").text == "38.0% 36.0–40.0 keeps 95.0%"
    assert cell(row, "0-probe").text == "60.0% 57.0–63.0"
    assert cell(row, "0-poison").text == "75.0% 105 / 140"
    assert cell(row, "0-train").text == "4 m 05 s 1 seed 10"


def test_the_clean_column_has_utility_and_no_attack_success(tmp_path):
    found = page([record("none", "none", top1=0.49), record()], tmp_path)
    row = found.rows()["undefended none"]
    columns = {data.attributes["data-column"] for data in row.all("td")}
    assert {"1-zero-shot", "1-probe", "1-train"} <= columns
    assert not {"1-asr", "1-gain", "1-poison"} & columns
    assert cell(row, "1-zero-shot").text.startswith("49.0%")


def test_an_invalid_attack_is_shown_grey_and_never_sorted_as_a_success(tmp_path):
    row = page([record(defense="otcclip", asr=(0, 100), valid=False)], tmp_path).rows()["OTCCLIP otcclip"]
    for column in ("0-asr", "0-gain"):
        found = cell(row, column)
        assert "muted" in found.attributes["class"].split()
        assert "data-value" not in found.attributes
    assert "attack invalid" in cell(row, "0-gain").text
    assert cell(row, "worst").text == "– incomplete"


def test_an_attack_whose_twin_is_missing_says_so(tmp_path):
    row = page([record(defense="otcclip", valid=None)], tmp_path).rows()["OTCCLIP otcclip"]
    assert "twin not run" in cell(row, "0-gain").text
    assert "twin not run" in cell(row, "0-zero-shot").text


def test_failed_and_missing_combinations_are_named(tmp_path):
    records = [
        record(),
        record("targeted", "roclip"),
        failed("targeted", "otcclip", 10, "loss is not a number"),
    ]
    rows = page(records, tmp_path).rows()
    states = {
        name: [data.text for data in row.all("td") if "state" in data.attributes["class"].split()]
        for name, row in rows.items()
    }
    assert states["OTCCLIP otcclip"] == ["failed: loss is not a number", "not run", "not run"]
    assert states["RoCLIP roclip"] == ["not run", "not run"]
    assert states["undefended none"] == ["not run", "not run"]


def test_lost_utility_is_flagged(tmp_path):
    rows = page([record(top1=0.5), record(defense="roclip", top1=0.44)], tmp_path).rows()
    assert "utility lost" in cell(rows["RoCLIP roclip"], "0-zero-shot").text


def test_a_reconstruction_carries_a_dagger_and_its_note(tmp_path):
    use = PluginUse(
        name="otcclip",
        config={},
        title="OTCCLIP",
        track="pre-training",
        reconstruction="the cost is inferred",
    )
    found = page([record(defense="otcclip").model_copy(update={"defense": use})], tmp_path)
    assert "OTCCLIP † otcclip" in found.rows()
    [notes] = [item.text for item in found.root.all("ul") if item.attributes.get("class") == "notes"]
    assert notes == "† OTCCLIP , in part our reconstruction: the cost is inferred"


def test_every_record_has_its_provenance_on_the_page(tmp_path):
    records = grid()
    text = page(records, tmp_path).root.text
    for one in records:
        assert one.provenance.config_hash in text
    for fact in (
        "0123abc",
        "feedfacecafe0123",
        "torch 2.15.0",
        "Linux x86_64",
        "2026-11-21T12:00:00Z",
        "900 MiB",
    ):
        assert fact in text


def test_a_repair_s_record_lists_every_candidate_and_the_choice(tmp_path):
    sweep = [
        RepairCandidate(name="undefended", validation_accuracy=0.5, zero_shot=0.4, asr=0.9, base=0.02),
        RepairCandidate(
            name="lr 5e-05", validation_accuracy=0.49, zero_shot=0.41, asr=0.1, base=0.03, chosen=True
        ),
        RepairCandidate(name="lr 0.0005", failure=Failure(reason="<b>not finite</b>")),
        RepairCandidate(name="lr 0.005", validation_accuracy=0.2),
    ]
    text = page([record(defense="cleanclip", frontier=sweep)], tmp_path).root.text
    assert "Repair, undefended validation 50.0%, zero-shot 40.0%, ASR 90.0%, base 2.0% " in text
    assert "Repair, lr 5e-05 validation 49.0%, zero-shot 41.0%, ASR 10.0%, base 3.0%, chosen" in text
    assert "Repair, lr 0.0005 failed: <b>not finite</b>" in text
    assert "Repair, lr 0.005 validation 20.0% " in text


def test_hostile_strings_stay_text(tmp_path):
    use = PluginUse(
        name=HOSTILE, config={HOSTILE: HOSTILE}, title=HOSTILE, track=HOSTILE, reconstruction=HOSTILE
    )
    bad = record(tier=HOSTILE, headline=HOSTILE).model_copy(update={"attack": use, "defense": use})
    worse = failed("targeted", "none", 11, HOSTILE, tier=HOSTILE)
    origin = bad.provenance.model_copy(
        update={"commit": HOSTILE, "device": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    )
    found = page([bad.model_copy(update={"provenance": origin}), worse], tmp_path)
    assert len(found.root.all("script")) == 1
    assert not found.root.all("img")
    assert not [
        name for element in found.root.everything() for name in element.attributes if name.startswith("on")
    ]
    assert HOSTILE in "".join(found.root.strings())


def test_the_page_loads_nothing(tmp_path):
    html = render(grid(), tmp_path).read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", html)
    found = Page(html).root.everything()
    addresses = [e.attributes[name] for e in found for name in ("src", "href") if name in e.attributes]
    assert addresses
    assert all(address.startswith("#") or address == "data:," for address in addresses)
    [policy] = [
        e.attributes["content"] for e in found if e.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'")


def test_tables_are_readable_by_screen_readers(tmp_path):
    found = page(grid(), tmp_path).root
    for table in found.all("table"):
        assert table.all("caption")[0].text
        assert {"col", "colgroup", "row"} == {heading.attributes["scope"] for heading in table.all("th")}
        assert all(
            h.attributes.get("aria-sort") == "none" for h in table.all("th") if "data-sort" in h.attributes
        )
    identities = [e.attributes["id"] for e in found.everything() if "id" in e.attributes]
    assert len(identities) == len(set(identities))
    links = {e.attributes["href"][1:] for e in found.all("a") if e.attributes["href"].startswith("#")}
    assert links <= set(identities)


def test_rows_are_as_wide_as_the_heading(tmp_path):
    for table in page(grid(), tmp_path).root.all("table"):
        groups, measures = table.all("thead")[0].all("tr")
        width = sum(int(h.attributes.get("colspan", 1)) for h in groups.all("th"))
        assert width == 2 + len(measures.all("th"))
        for body in table.all("tbody"):
            for row in body.all("tr"):
                cells = row.all("th") + row.all("td")
                assert sum(int(data.attributes.get("colspan", 1)) for data in cells) == width


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path):
    records = grid()
    first = render(records, tmp_path / "a").read_bytes()
    assert render(records[::-1], tmp_path / "b").read_bytes() == first


def test_no_records_make_a_page_that_says_what_to_do(tmp_path):
    assert "poisonbench run" in page([], tmp_path).root.text


def test_an_unwritable_folder_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*index\.html"):
        render([], tmp_path / "file")
