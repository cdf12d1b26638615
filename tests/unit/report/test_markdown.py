"""The Markdown page, read by a parser of Markdown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import made_up_report
import pytest
from markdown_it import MarkdownIt

from edgedeploy.report.blocks import Fact, Section, Summary, Table, Text
from edgedeploy.report.data import ReportData
from edgedeploy.report.markdown import LONGEST, escaped, markdown
from edgedeploy.report.page_sections import write_markdown
from edgedeploy.report.tables import line

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "# no heading",
    "1. no list",
    "- no list",
    "[no link](http://127.0.0.1)",
    "![no picture](http://127.0.0.1)",
    "**no weight** _none_ ~~none~~",
    "`no code`",
    "two\nlines\n\n# and a heading",
    "&lt;b&gt;",
    "\\| a backslash",
    "@everybody, see #12",
    "1.23.2 (made-up)",
    "> no quotation",
    "===",
]


@pytest.fixture(scope="module")
def data() -> ReportData:
    return made_up_report.report_data()


def shown(text: str) -> tuple[list[str], str]:
    """The kinds of what Markdown made of it, and what a reader sees."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    return [token.type for token in (*tokens, *inline)], "".join(child.content for child in inline)


@pytest.mark.fault(38)
@pytest.mark.parametrize("word", HOSTILE)
def test_what_things_are_called_stays_text(word: str) -> None:
    kinds, text = shown(escaped(word))
    assert set(kinds) <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    assert text == " ".join(word.split())


@pytest.mark.parametrize("word", HOSTILE)
def test_a_cell_of_a_table_stays_one(word: str) -> None:
    section = Section("Made up", "", [Table(["one", word], [line("a", word), line(word, "b")])])
    kinds, _ = shown(markdown(Summary("made up", "measured", "", False, "", ()), [section]))
    assert kinds.count("td_open") == 4 and kinds.count("th_open") == 2
    assert not {"html_block", "html_inline", "link_open", "image"} & set(kinds)


def test_nobody_is_mentioned_and_plain_words_stay_plain() -> None:
    assert "@" not in escaped("@everybody, see #12") and "#12" not in escaped("see #12").replace("\\#", "")
    plain = "made-up (1.23.2), 0.5 to 0.6: 40 % of all!"
    assert escaped(plain) == plain


def test_text_that_is_shown_as_it_stands_cannot_end_its_fence() -> None:
    text = "```\n# a heading\n``````\n"
    kinds, _ = shown(markdown(Summary("a", "b", "", True, "", ()), [Section("S", "", [Text(text, "verbatim")])]))
    assert kinds.count("fence") == 1 and kinds.count("heading_open") == 2, "the page's and the section's own"


def test_the_page_has_the_answer_and_the_tables(data: ReportData, tmp_path: Path) -> None:
    text = write_markdown(data, tmp_path / "report.md").read_text(encoding="utf-8")
    assert len(text) < LONGEST
    kinds, seen = shown(text)
    assert kinds.count("table_open") >= 5
    for title in (
        "What to ship",
        "How sure",
        "What it costs",
        "What was not shown",
        "Rivals that cannot be told apart",
    ):
        assert title in seen
    for row in data.front.members:
        assert row.variant.label in seen
    assert "data:image" not in text and "<svg" not in text
    assert text == write_markdown(made_up_report.report_data(), tmp_path / "again.md").read_text(encoding="utf-8")


def test_what_would_be_too_long_is_left_out_and_named() -> None:
    long = Section("Long one", "", [Table(["a"], [line("x" * 1000)] * 70)], folded=True)
    short = Section("Short one", "", [Text("said")], folded=True)
    summary = Summary("a", "b", "", True, "the answer", [Fact("What to ship", ["this"])])
    text = markdown(summary, [long, short])
    assert len(text) < LONGEST and "Too long for this page, and in the report: Long one." in text
    assert "<details><summary>Short one</summary>" in text and "the answer" in text


def test_secrets_of_the_study_file_are_not_in_it(data: ReportData, tmp_path: Path) -> None:
    """It is made of what the page is made of, which has been cleaned; nothing is read past that."""
    said = dataclasses.replace(data, study_text="left out", notes=["a note"])
    text = write_markdown(said, tmp_path / "report.md").read_text(encoding="utf-8")
    assert "made-up study" in text and "a note" in text and 'targets = ["onnxruntime"' not in text
