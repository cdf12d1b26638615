"""The report as its readers have it: on a phone, in the dark, on paper, by keyboard, with a screen reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import made_up_report
import numpy as np
import pytest
from axe_kit import axe, violations
from browser_kit import BEYOND, DESK, OPEN_ALL, PHONE, Browser, browser
from PIL import Image

from edgedeploy.report.page_sections import write_report

pytestmark = [pytest.mark.browser, pytest.mark.beside]


@pytest.fixture(scope="module")
def reader(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(chromium, tmp_path_factory.mktemp("browser") / "profile") as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    long = "a_task_that_was_named_by_somebody_who_likes_long_names_without_any_place_to_break_them"
    data = dataclasses.replace(made_up_report.report_data(), name=long, notes=[f"/{long}/{long}"])
    return write_report(data, tmp_path_factory.mktemp("page") / "report.html")


@pytest.mark.parametrize("folded", [True, False])
def test_on_a_phone_nothing_stands_beyond_the_edge(reader: Browser, page: Path, folded: bool) -> None:
    reader.screen(*PHONE)
    reader.open(page)
    if not folded:
        reader.run(OPEN_ALL)
        reader.settle()
    assert reader.run("innerWidth") == PHONE[0]
    assert reader.run("document.documentElement.scrollWidth") <= PHONE[0]
    assert reader.run(BEYOND) == []


def test_what_stands_beyond_the_edge_would_be_seen(reader: Browser, page: Path) -> None:
    reader.screen(*PHONE)
    reader.open(page)
    reader.run("document.querySelector('main p').style.width = '500px'")
    assert reader.run("innerWidth") > PHONE[0] and reader.run(BEYOND) != []


def test_the_answer_is_on_the_first_screen(reader: Browser, page: Path) -> None:
    """All of it on a desk; the headline, what to ship, and the beginning of how sure on a phone."""
    reader.screen(*DESK)
    reader.open(page)
    ends = reader.run("[...document.querySelectorAll('.fact')].map(e => e.getBoundingClientRect().bottom)")
    assert len(ends) == 4 and max(ends) < DESK[1]
    reader.screen(*PHONE)
    reader.open(page)
    assert reader.run("document.querySelectorAll('.fact')[1].getBoundingClientRect().top") < PHONE[1]


@pytest.mark.parametrize(("size", "dark"), [(DESK, False), (DESK, True), (PHONE, False)])
def test_axe_finds_nothing(reader: Browser, page: Path, size: tuple[int, int], dark: bool) -> None:
    source = axe()
    reader.screen(*size, dark=dark)
    reader.open(page)
    assert violations(reader, source) == []
    reader.run(OPEN_ALL)
    reader.settle()
    assert violations(reader, source) == []


def test_axe_would_find_something(reader: Browser, page: Path) -> None:
    source = axe()
    reader.screen(*DESK)
    reader.open(page)
    reader.run("document.querySelector('.headline').style.color = '#dddddd'; document.querySelector('img').alt = ''")
    reader.run("document.querySelector('img').removeAttribute('alt')")
    assert {line.partition(":")[0] for line in violations(reader, source)} == {"color-contrast", "image-alt"}


def test_a_dark_page_is_dark_and_its_charts_too(reader: Browser, page: Path, tmp_path: Path) -> None:
    found = {}
    for dark in (False, True):
        reader.screen(*DESK, dark=dark)
        reader.open(page)
        found[dark] = np.asarray(Image.open(reader.picture(tmp_path / f"{dark}.png")).convert("L"))
    assert np.median(found[False]) > 230 and np.median(found[True]) < 60
    ink = "getComputedStyle(document.querySelector('#front-chart .xtick text')).fill"
    assert reader.run(ink) == reader.run("getComputedStyle(document.body).color")


def test_paper_has_everything_in_dark_ink(reader: Browser, page: Path, tmp_path: Path) -> None:
    """What is folded on the screen is printed, also for who reads in the dark."""
    reader.screen(*DESK, dark=True)
    reader.open(page)
    short = reader.run("document.documentElement.scrollHeight")
    reader.screen(*DESK, dark=True, media="print")
    reader.settle()
    assert reader.run("document.documentElement.scrollHeight") > 1.5 * short, "the folded parts are left out"
    assert reader.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert reader.run("document.querySelector('nav').offsetHeight") == 0
    reader.screen(*DESK, dark=True)
    reader.settle()
    assert reader.pdf(tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert reader.run("document.querySelectorAll('details[open]').length") == 0, "they are folded again afterwards"
    assert reader.run("document.querySelectorAll('.js-plotly-plot').length") >= 5, "charts of folded parts are printed"


def test_everything_is_reached_by_keyboard(reader: Browser, page: Path) -> None:
    """Tab goes through the page in the order in which it stands, shows where it is, and opens what is folded."""
    reader.screen(*DESK)
    reader.open(page)
    reader.press("Tab", 9)
    assert reader.run("document.activeElement.className") == "skip"
    assert reader.run("document.activeElement.getBoundingClientRect().left") >= 0, "it is seen when it is reached"
    reached = []
    for _ in range(60):
        reader.press("Tab", 9)
        at = reader.run("document.activeElement.tagName + ' ' + document.activeElement.textContent.trim()")
        if at.startswith("BODY"):
            break
        reached.append(at)
        assert reader.run("getComputedStyle(document.activeElement).outlineStyle") != "none", at
    folds = reader.run("[...document.querySelectorAll('summary')].map(e => 'SUMMARY ' + e.textContent.trim())")
    links = reader.run("[...document.querySelectorAll('nav a')].map(e => 'A ' + e.textContent.trim())")
    assert [at for at in reached if at.startswith("SUMMARY")] == folds and len(folds) >= 8
    assert [at for at in reached if at.startswith("A ")] == links
    reader.run("document.querySelector('#environment summary').focus()")
    reader.press("Enter", 13, "\r")
    assert reader.run("document.querySelector('#environment details').open")


def test_charts_of_a_folded_part_are_drawn_when_it_is_opened(reader: Browser, page: Path) -> None:
    reader.screen(*DESK)
    reader.open(page)
    drawn = "[...document.querySelectorAll('.js-plotly-plot')].map(e => e.id)"
    assert reader.run(drawn) == ["front-chart", "case-chart"]
    reader.run("document.querySelector('#how-the-search-went summary').click()")
    reader.settle()
    folded = {"progress-chart", "progress-time-chart", "parallel-chart", "importance-chart"}
    assert set(reader.run(drawn)) == {"front-chart", "case-chart"} | folded
    widths = reader.run("[...document.querySelectorAll('.js-plotly-plot .main-svg')].map(e => e.clientWidth)")
    assert min(widths) > 900


def test_a_link_to_a_folded_part_opens_it(reader: Browser, page: Path) -> None:
    reader.screen(*DESK)
    reader.open(page)
    reader.run("document.querySelector('nav a[href=\"#all-variants\"]').click()")
    reader.settle()
    assert reader.run("document.querySelector('#all-variants details').open")


def test_a_screen_reader_hears_landmarks_headings_and_what_pictures_show(reader: Browser, page: Path) -> None:
    reader.screen(*DESK)
    reader.open(page)
    reader.run(OPEN_ALL)
    reader.settle()
    nodes = reader.call("Accessibility.getFullAXTree")["nodes"]
    heard = [(node.get("role", {}).get("value"), node.get("name", {}).get("value", "")) for node in nodes]
    roles = [role for role, _ in heard]
    assert {"banner", "main", "navigation", "contentinfo"} <= set(roles)
    levels = reader.run("[...document.querySelectorAll('h1, h2, h3, h4, h5')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    images = [name for role, name in heard if role in ("image", "img")]
    assert all(images), "a picture says nothing"
    assert any(name.startswith("Plot of Dice mean against Latency") for name in images)
    network = "The network layer by layer against the baseline: of 9 layers 6 at most half"
    assert any(name.startswith(network) for name in images)
    assert "columnheader" in roles and "rowheader" in roles
