"""The page in a real browser: silent, offline, and sortable by mouse and keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_fakes import grid

from poisonbench.leaderboard import render

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}; apt install chromium"
)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def address(tmp_path) -> str:
    return render(grid(), tmp_path).resolve().as_uri()


def names(view, kind: str = "ranked") -> list[str]:
    return view.locator(f"tbody.{kind}").first.locator("th .title").all_inner_texts()


def test_it_loads_alone_and_sorts(browser, address):
    view = browser.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    view.on("request", lambda request: requests.append(request.url))
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.goto(address)
    view.wait_for_load_state("networkidle")

    baselines = names(view, "baselines")
    heading = view.locator('th[data-sort="0-zero-shot"]').first
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert names(view) == ["OTCCLIP", "RoCLIP"]
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert names(view) == ["RoCLIP", "OTCCLIP"]
    assert sorted(names(view, "baselines")) == sorted(baselines)

    worst = view.locator('th[data-sort="worst"]').first
    for _ in range(2):  # a defence without a worst case is last in either direction
        worst.get_by_role("button").click()
        assert names(view) == ["OTCCLIP", "RoCLIP"]
    assert heading.get_attribute("aria-sort") == "none"

    assert complaints == []
    assert [url for url in requests if url not in (address, "data:,")] == []
    view.close()


def test_a_number_leads_to_its_records(browser, address):
    view = browser.new_page()
    view.goto(address)
    link = view.locator("tbody.ranked td small a").first
    target = view.locator(f"[id='{link.get_attribute('href')[1:]}']")
    assert not target.is_visible()
    link.click()
    target.wait_for(state="visible")
    view.close()


def test_it_can_be_read_without_scripts(browser, address):
    context = browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(address)
    assert "OTCCLIP" in view.locator("table").first.inner_text()
    assert view.locator("thead button").count() == 0
    context.close()
