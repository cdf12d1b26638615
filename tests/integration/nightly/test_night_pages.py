"""The lab page and the trend page as their readers have them: at a desk, on a phone, in the dark, on paper, by keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import made_up_night as made_up
import numpy as np
import pytest
from axe_kit import axe, violations
from browser_kit import BEYOND, DESK, OPEN_ALL, PHONE, Browser, browser
from PIL import Image

from edgedeploy.nightly.results import Written, write_results
from edgedeploy.records.night import Acceptance, AlarmTold

pytestmark = [pytest.mark.browser, pytest.mark.beside]

PAGES = ("lab", "trend")
READY = """
new Promise(done => {
  const look = () => document.documentElement.dataset.ready ? done() : setTimeout(look, 10);
  look();
})
"""
REACHABLE = """
[...document.querySelectorAll('a, summary, select, button')]
  .filter(e => !e.closest('details:not([open]) > :not(summary)'))
  .map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 40))
"""
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def reader(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(chromium, tmp_path_factory.mktemp("browser") / "profile") as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """40 nights of 6 entries on two boards, then a night with one of everything and an accepted baseline."""
    nights = list(made_up.year(40, 3, last="2026-11-28"))
    last = made_up.every_outcome()
    accepted = (Acceptance("thyroid", "release 4 is out"),)
    tonight = made_up.night(
        verdicts=(*last.verdicts, made_up.verdict("entry-000", "cart")), boards=last.boards, accepted=accepted
    )
    return write_results(tonight, nights, tmp_path_factory.mktemp("nights"))


def open_page(
    reader: Browser, path: Path, size: tuple[int, int] = DESK, *, dark: bool = False, media: str = ""
) -> None:
    reader.screen(*size, dark=dark, media=media)
    reader.call("Page.navigate", url="about:blank")  # a link within the page that is open would load nothing
    reader.open(path)
    if path.name == "trend.html":
        reader.run(READY)
        reader.settle()


def page_of(written: Written, name: str) -> Path:
    return written.lab if name == "lab" else written.trend


@pytest.mark.parametrize("name", PAGES)
def test_on_a_phone_nothing_stands_beyond_the_edge(reader: Browser, written: Written, name: str) -> None:
    open_page(reader, page_of(written, name), PHONE)
    reader.run(OPEN_ALL)
    reader.settle()
    assert reader.run("document.documentElement.scrollWidth") <= PHONE[0]
    assert reader.run(BEYOND) == []


def test_the_chart_is_drawn_under_the_policy_of_the_page(reader: Browser, written: Written) -> None:
    """As every reader has it; the other tests bring scripts of their own, which the policy forbids."""
    reader.call("Page.setBypassCSP", enabled=False)
    try:
        open_page(reader, written.trend)
        assert reader.run("document.querySelectorAll('#trend-chart .main-svg').length") > 0
    finally:
        reader.call("Page.setBypassCSP", enabled=True)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("size", "dark"), [(DESK, False), (DESK, True), (PHONE, False)])
def test_axe_finds_nothing(reader: Browser, written: Written, name: str, size: tuple[int, int], dark: bool) -> None:
    source = axe()
    open_page(reader, page_of(written, name), size, dark=dark)
    reader.run(OPEN_ALL)
    reader.settle()
    assert violations(reader, source) == []


@pytest.mark.parametrize("name", PAGES)
def test_the_answer_is_on_the_first_screen(reader: Browser, written: Written, name: str) -> None:
    open_page(reader, page_of(written, name))
    assert reader.run("document.querySelector('.headline').textContent") == "2 regressions and 1 changed artifact"
    assert reader.run("document.querySelector('.answer').getBoundingClientRect().bottom") < DESK[1]


@pytest.mark.parametrize("name", PAGES)
def test_a_dark_page_is_dark_and_paper_is_white(reader: Browser, written: Written, name: str, tmp_path: Path) -> None:
    found = {}
    for dark in (False, True):
        open_page(reader, page_of(written, name), dark=dark)
        found[dark] = np.asarray(Image.open(reader.picture(tmp_path / f"{dark}.png")).convert("L"))
    assert np.median(found[False]) > 230 and np.median(found[True]) < 60
    if name == "trend":
        ink = "getComputedStyle(document.querySelector('#trend-chart .xtick text')).fill"
        assert reader.run(ink) == reader.run("getComputedStyle(document.body).color")
    open_page(reader, page_of(written, name), dark=True, media="print")
    assert reader.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert reader.run("document.querySelector('nav').offsetHeight") == 0
    reader.screen(*DESK)
    assert reader.pdf(tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", PAGES)
def test_everything_is_reached_by_keyboard(reader: Browser, written: Written, name: str) -> None:
    open_page(reader, page_of(written, name))
    reached = []
    for _ in range(80):
        reader.press("Tab", 9)
        at = reader.run("document.activeElement.tagName + ' ' + document.activeElement.textContent.trim().slice(0, 40)")
        if at.startswith("BODY"):
            break
        reached.append(at)
        assert reader.run("getComputedStyle(document.activeElement).outlineStyle") != "none", at
    assert [at for at in reached if at.partition(" ")[0] in ("A", "SUMMARY", "SELECT", "BUTTON")] == reader.run(
        REACHABLE
    )


@pytest.mark.parametrize("name", PAGES)
def test_headings_and_landmarks_are_in_order(reader: Browser, written: Written, name: str) -> None:
    open_page(reader, page_of(written, name))
    levels = reader.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    nodes = reader.call("Accessibility.getFullAXTree")["nodes"]
    assert {"banner", "main", "navigation", "contentinfo"} <= {node.get("role", {}).get("value") for node in nodes}


def chosen(reader: Browser) -> str:
    said: str = reader.run("document.getElementById('said').textContent")
    return said


def test_the_worst_number_is_drawn_first_and_others_when_they_are_chosen(reader: Browser, written: Written) -> None:
    open_page(reader, written.trend)
    assert chosen(reader).startswith("Latency p50 of thyroid on cart: 1 night, 1 regression; 2026-11-29: +12.3")
    reader.run(
        "const box = document.getElementById('choose-entry'); box.value = "
        "[...box.options].find(e => e.textContent === 'entry-000').value; box.dispatchEvent(new Event('change'))"
    )
    reader.settle()
    assert chosen(reader).startswith("Latency p50 of entry-000 on cart: 41 nights, 2 regressions; 2026-11-29: +0.4")
    assert reader.run("[...document.getElementById('choose-metric').options].length") == len(made_up.METRICS)
    label = reader.run("document.getElementById('trend-chart').getAttribute('aria-label')")
    assert label == f"Chart over time. {chosen(reader)}"


def test_a_chart_shows_the_numbers_that_were_measured(reader: Browser, written: Written) -> None:
    """Through quantising, packing, unpacking: what is drawn is what the nights hold."""
    open_page(reader, written.trend)
    reader.run("location.hash = 'show/entry-002/jetson/dice_mean'")
    reader.settle()
    drawn = reader.run("document.getElementById('trend-chart').data.filter(t => t.name === 'within its limit')[0].y")
    nights = list(made_up.year(40, 3, last="2026-11-28"))
    wanted = [
        one.loss
        for night in nights
        for verdict in night.verdicts
        if (verdict.entry, verdict.board) == ("entry-002", "jetson")
        for one in verdict.series
        if one.metric == "dice_mean"
    ]
    assert drawn == pytest.approx(wanted, abs=6e-5)
    limits = reader.run("document.getElementById('trend-chart').data.find(t => t.name === 'limit').y")
    assert limits[:40] == pytest.approx([made_up.series().limit] * 40, abs=6e-5) and limits[40] is None


def test_a_line_is_broken_where_the_boards_key_changed_and_marks_say_why(reader: Browser, written: Written) -> None:
    open_page(reader, written.trend)
    reader.run("location.hash = 'show/entry-000/cart/latency_p50_ns'")
    reader.settle()
    gaps = "document.getElementById('trend-chart').data[0].y.filter(v => v === null).length"
    assert reader.run(gaps) == 3  # another image, another runtime, and tonight both as before
    happened = reader.run(
        "[...document.querySelectorAll('#happened tbody tr')].map(e => [...e.cells].map(c => c.textContent))"
    )
    texts = [(night, text) for _, night, text in happened]
    assert ("2026-11-09", "image R36.4.3, before R36.4.0") in texts
    assert ("2026-11-17", "runtime 1.24.0, before 1.23.2") in texts
    assert ("2026-11-17", "onnxruntime 1.24.0, before 1.23.2") in texts
    marks = reader.run("document.getElementById('trend-chart').layout.annotations.map(a => a.text)")
    assert marks == ["1", "2", "3"] and {number for number, _, _ in happened} == set(marks)


def test_an_accepted_baseline_is_marked(reader: Browser, written: Written) -> None:
    open_page(reader, written.trend)
    reader.run("document.querySelector('#what-to-look-at a').click()")
    reader.settle()
    assert chosen(reader).startswith("Latency p50 of thyroid")
    assert reader.run("document.querySelector('#happened').textContent.includes('baseline accepted: release 4 is out')")
    assert reader.run("document.activeElement.tagName") == "H2"


def test_a_link_that_leads_nowhere_changes_nothing(reader: Browser, written: Written) -> None:
    open_page(reader, written.trend)
    before = chosen(reader)
    for link in ("show/nobody/cart/latency_p50_ns", "show/%E0%A4%A/b/c", "show/a"):
        reader.run(f"location.hash = {json.dumps(link)}")
        reader.settle()
        assert chosen(reader) == before


def test_a_lab_without_a_number_says_so(reader: Browser, tmp_path: Path) -> None:
    empty = write_results(made_up.night(verdicts=(), boards=()), (), tmp_path)
    reader.screen(*DESK)
    reader.open(empty.trend)
    assert chosen(reader) == "No number was ever taken."
    reader.open(empty.lab)
    assert reader.run("document.querySelector('.headline').textContent") == "Nothing was due"


@pytest.mark.fault(38)
def test_names_with_html_in_them_stay_text(reader: Browser, tmp_path: Path) -> None:
    odd = made_up.verdict(
        HOSTILE, HOSTILE, outcome="regression", reason=HOSTILE, owner=HOSTILE, series=(made_up.slower(HOSTILE),)
    )
    before = made_up.night(
        "2026-11-28", verdicts=(made_up.verdict(HOSTILE, HOSTILE, series=(made_up.series(HOSTILE),)),), tools={"a": "1"}
    )
    night = made_up.night(
        lab=HOSTILE,
        verdicts=(odd,),
        boards=(made_up.health(HOSTILE, quarantined=HOSTILE, provenance=HOSTILE),),
        told=AlarmTold("failed", HOSTILE),
        accepted=(Acceptance(HOSTILE, HOSTILE),),
        tools={"a": HOSTILE},
    )
    hostile = write_results(night, [before], tmp_path)
    for path in (hostile.lab, hostile.trend):
        open_page(reader, path)
        reader.run(OPEN_ALL)
        reader.settle()
        assert reader.run("document.title").startswith(HOSTILE)
        assert reader.run("document.querySelectorAll('img, [onerror]').length") == 0
        assert reader.run("document.body.textContent").count(HOSTILE) >= 3
