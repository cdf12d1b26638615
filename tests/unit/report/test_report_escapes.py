"""Whatever others called their things, a report shows it as text, and the page around it is the same."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

import made_up
import made_up_report
import pytest
from report_reader import HOSTILE, Reader

from edgedeploy.records.measurement import Failure
from edgedeploy.report.blocks import (
    Bar,
    Block,
    Cell,
    Chart,
    Columns,
    Fact,
    Fold,
    Line,
    Picture,
    Pictures,
    Points,
    Section,
    Share,
    Summary,
    Table,
    Text,
    Tile,
)
from edgedeploy.report.drawing import Box, Drawing, Mark, Words
from edgedeploy.report.html import page
from edgedeploy.report.page_sections import ReportData, render_report


@pytest.fixture(scope="module")
def data() -> ReportData:
    return made_up_report.report_data()


def test_nothing_in_the_page_points_outside(data: ReportData) -> None:
    reader = Reader(render_report(data))
    for tag, attributes in reader.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert str(attributes.get(name) or "data:").startswith(("data:", "#")), (tag, attributes)
    assert not [tag for tag, _ in reader.tags if tag in ("link", "iframe", "object", "embed", "base")]
    own = "".join(reader.sections.values()) + reader.scripts[0] + reader.scripts[2]
    assert "http:" not in own and "https:" not in own
    policy = next(a["content"] for tag, a in reader.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None and "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert "script-src 'sha256-" in policy


def everywhere(data: ReportData, word: str) -> ReportData:
    """A study in which everything that somebody else named is called ``word``."""
    named = made_up.variant("openvino", "int8", 0.75, resolution=word)
    by_case = {word: {"dice_mean": 0.1}, **made_up.cases(0.85)}
    layer = {"name": word, "source": None, "operator": word, "kernel": word, "device": word, "ns": 5}
    about: dict[str, Any] = {
        "board": made_up.board(name=word, cpu=word, notes=(word,), runtimes={word: word}),
        "environment": {"before": {word: word}, "after": {word: word}, word: word},
        "layers": {"candidate": {"layers": [layer]}, "baseline": {"missing": word}},
        "notes": (word,),
    }
    items = [
        made_up.measurement(per_case={**by_case, word: {"dice_mean": 0.9}}, **about),
        made_up.measurement(named, per_case=by_case, latency_ms=2.0, executed={word: 3}, **about),
        made_up.measurement(made_up.variant(width=0.3), cause=word, board=about["board"]),
        made_up.measurement(
            made_up.variant(width=0.4),
            per_case=by_case,
            without=["latency_ratio"],
            missing={"latency_ratio": word},
            **about,
        ),
    ]
    host = {"cpu": word, "isa": [word], "isa_limit": word, "native_bfloat16": False}
    front = made_up_report.front(items, margin=1.0)
    rows = tuple(
        dataclasses.replace(row, p_on_front=0.5) for row in front.rows
    )  # draws hang on digests and ids of cases
    return dataclasses.replace(
        data,
        name=word,
        front=dataclasses.replace(front, rows=rows, failures=(Failure(named, word, word, word, ""),), ended=word),
        measurements=items,
        confirmation=[],
        openings=[{"utc": word, "reason": word, "variants": [word]}],
        pictures=[made_up_report.CasePicture(word, {"truth": made_up_report.picture(0, 0)})],
        seconds={word: 1.0},
        training={"epochs": 1, "precision": word, "wall_s": 1.0, "host": host},
        versions={word: word},
        study_text=word,
        command=word,
        notes=[word],
    )


def test_names_with_html_in_them_are_text_and_nothing_else(data: ReportData) -> None:
    page = render_report(everywhere(data, HOSTILE))
    reader = Reader(page)
    assert HOSTILE in reader.sections["How to do it again"]
    assert len(reader.scripts) == 3
    assert not [attributes for _, attributes in reader.tags if "onerror" in attributes]
    assert "<img src=x" not in page and "<script>document" not in page
    hover = [text for trace in reader.charts["front-chart"]["data"] for text in trace.get("text", ())]  # type: ignore[attr-defined]
    assert any(html.escape(HOSTILE) in text for text in hover)
    assert not any("<img" in text or "<script" in text for text in hover)


def every_block(word: str) -> str:
    """A page with every kind of block, and ``word`` in each of their texts."""
    cell = Cell(word, small=word, beside=word, hint=word, colour=word, sort=word)
    tables = [
        Table([word], [Line([cell, cell], [word])], (0,), look, named=True) for look in ("", "sortable", "narrow")
    ]
    shapes = [Box(0, 0, 1, 1, word, word), Mark(1, 1, "circle", 1, word, word), Words(1, 1, word, word)]
    blocks: list[Block] = [
        *(Text(word, look) for look in ("", "bold", "heading", "note", "verbatim")),
        *tables,
        Chart(word, word, {}, word),
        Bar(word, [Share(50, word, word)]),
        Pictures([(word, [Picture(word, word, word)])]),
        Columns([(word, tables)]),
        Points([word]),
        Fold(word, [Text(word), tables[0]]),
        Drawing(word, word, 9, 9, shapes),
    ]
    summary = Summary(word, word, word, True, word, [Fact(word, [word], [Tile(word, word, [word])], [word], word)])
    return page(summary, [Section(word, word, blocks)])


@pytest.mark.parametrize(
    "word", [HOSTILE, '" onmouseover="alert(1)" x=\'', "{{ 7*7 }}{% raw %}{# no #}", "&lt;b&gt; &amp;quot;", "--><!--"]
)
def test_whatever_things_are_called_the_page_is_the_same_around_it(data: ReportData, word: str) -> None:
    pages = [(every_block(name), render_report(everywhere(data, name))) for name in ("a-name", word)]
    for harmless, hostile in zip(*((Reader(text) for text in texts) for texts in pages), strict=True):
        assert [(tag, list(attributes)) for tag, attributes in hostile.tags] == [
            (tag, list(attributes)) for tag, attributes in harmless.tags
        ]
        for (_, found), (_, expected) in zip(hostile.tags, harmless.tags, strict=True):
            for name, value in expected.items():
                anchor = Section(word, "", []).anchor  # made of letters that mean nothing
                assert not value or found[name] in (value.replace("a-name", word), anchor, f"#{anchor}")
        for (title, found), (_, expected) in zip(hostile.sections.items(), harmless.sections.items(), strict=True):
            assert found.count(word) == expected.count("a-name"), title


def test_what_others_named_is_all_over_the_page(data: ReportData) -> None:
    """So that the comparison above compares something."""
    sections = Reader(render_report(everywhere(data, "a-name"))).sections
    drawn = ["The front", "Rivals that cannot be told apart", "How the search went"]
    assert [title for title, text in sections.items() if "a-name" not in text] == drawn, "charts have the names"


def test_what_a_chart_says_cannot_leave_its_element() -> None:
    def page_with(figure: dict[str, object]) -> Reader:
        summary = Summary("made up", "measured", "", False, "", ())
        return Reader(page(summary, [Section("Chart", "", [Chart("drawn", "a chart", figure)])]))

    value: dict[str, object] = {"a": "</script><!--<script>&\u2028"}
    reader = page_with(value)
    assert reader.charts == {"drawn": value}
    assert not set("<>&\u2028") & set(reader.scripts[0])
    with pytest.raises(ValueError, match="JSON"):
        page_with({"x": float("nan")})
