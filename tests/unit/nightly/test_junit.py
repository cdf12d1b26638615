"""The JUnit file of a night, read by what others read it with."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import made_up_night as made_up
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase

from edgedeploy.nightly.results.junit import MOST_CHARACTERS, junit
from edgedeploy.records.night import AlarmTold, Night

ANYTHING = st.text(st.characters(exclude_categories=[]), max_size=40)
"""Halves of characters and control characters too."""


def cases_of(night: Night) -> dict[tuple[str, str], TestCase]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "junit.xml"
        path.write_bytes(junit(night))
        found = [case for suite in JUnitXml.fromfile(str(path)) for case in suite]
    named = {(case.classname, case.name): case for case in found}
    assert len(named) == len(found), "GitLab takes the first of two cases with one name"
    return named


def result_of(case: TestCase) -> tuple[str, str]:
    (found,) = case.result or [None]
    return (type(found).__name__, found.type) if found is not None else ("", "")


@pytest.fixture(scope="module")
def cases() -> dict[tuple[str, str], TestCase]:
    return cases_of(made_up.every_outcome())


def test_each_outcome_has_its_element(cases: dict[tuple[str, str], TestCase]) -> None:
    wanted = {
        ("vessels.cart", "latency_p50_ns"): ("", ""),
        ("vessels.cart", "artifact"): ("", ""),
        ("thyroid.cart", "latency_p50_ns"): ("Failure", "Regression"),
        ("thyroid.cart", "dice_mean"): ("", ""),
        ("thyroid.cart", "board"): ("", ""),
        ("lung.cart", "golden outputs"): ("Failure", "Regression"),
        ("nerve.cart", "artifact"): ("Failure", "ArtifactChanged"),
        ("nerve.cart", "latency_p50_ns"): ("", ""),
        ("liver.jetson", "latency_p50_ns"): ("Skipped", "Young"),
        ("vessels.jetson", "board"): ("Error", "BoardChanged"),
        ("vessels.jetson", "latency_p50_ns"): ("Skipped", "Young"),
        ("vessels.gone", "board"): ("Error", "BoardUnreachable"),
        ("vessels.gone", "dice_mean"): ("Error", "BoardUnreachable"),
        ("lung.bench", "board"): ("Error", "StorageError"),
        ("heart.cart", "board"): ("Skipped", "NotRun"),
    }
    assert {key: result_of(cases[key]) for key in wanted} == wanted


def test_the_numbers_stand_in_the_text_and_the_reason_in_the_message(cases: dict[tuple[str, str], TestCase]) -> None:
    (found,) = cases["thyroid.cart", "latency_p50_ns"].result
    assert isinstance(found, Failure)
    assert found.message == made_up.slower().reason
    for words in ("+12.3 %", "limit: +5.0 %", "sessions: 4", "nights in the history: 40"):
        assert words in found.text, words
    assert "+0.4 %" in (cases["vessels.cart", "latency_p50_ns"].system_out or "")
    (left,) = cases["heart.cart", "board"].result
    assert isinstance(left, Skipped) and left.message == "the budget ended before it"


def test_the_counts_of_the_file_are_those_of_its_cases(cases: dict[tuple[str, str], TestCase]) -> None:
    root = ElementTree.fromstring(junit(made_up.every_outcome()))
    kinds = Counter(result_of(case)[0] for case in cases.values())
    for element in (root, root[0]):
        assert int(element.attrib["tests"]) == len(cases)
        assert int(element.attrib["failures"]) == kinds["Failure"] == 3
        assert int(element.attrib["errors"]) == kinds["Error"]
        assert int(element.attrib["skipped"]) == kinds["Skipped"]


def test_a_night_without_a_fault_fails_nothing() -> None:
    assert {result_of(case) for case in cases_of(made_up.night()).values()} == {("", "")}


def test_a_regression_that_no_number_shows_is_not_lost() -> None:
    odd = made_up.verdict(outcome="regression", reason="two nights in a row")
    (found,) = cases_of(made_up.night(verdicts=(odd,)))["vessels.cart", "verdict"].result
    assert isinstance(found, Failure) and found.message == "two nights in a row"


def test_an_alarm_that_was_not_sent_is_an_error() -> None:
    night = made_up.night(told=AlarmTold("failed", "mail: exit code 1"))
    (found,) = cases_of(night)["edgedeploy nightly.imaging", "alarm"].result
    assert isinstance(found, Error) and found.message == "mail: exit code 1"
    sent = made_up.night(told=AlarmTold("sent"))
    assert ("edgedeploy nightly.imaging", "alarm") not in cases_of(sent)


def test_entries_and_boards_with_dots_are_told_apart() -> None:
    pair = (made_up.verdict("a.b", "c"), made_up.verdict("a", "b.c"))
    assert len(cases_of(made_up.night(verdicts=pair))) == 2 * (2 + 1 + len(made_up.METRICS))


def test_a_text_without_end_is_cut() -> None:
    (found,) = cases_of(made_up.night(verdicts=(made_up.verdict(outcome="board", reason="x" * 100_000),)))[
        "vessels.cart", "board"
    ].result
    assert MOST_CHARACTERS <= len(found.message) < MOST_CHARACTERS + 20


@settings(max_examples=60, deadline=None)
@given(entry=ANYTHING, board=ANYTHING, metric=ANYTHING, reason=ANYTHING, lab=ANYTHING)
def test_any_text_gives_a_file_that_is_read(entry: str, board: str, metric: str, reason: str, lab: str) -> None:
    number = made_up.series(metric, status="regression", reason=reason)
    odd = made_up.verdict(entry, board, outcome="regression", reason=reason, series=(number,))
    fault = made_up.verdict(entry, board, outcome="board", reason=reason, error=reason, series=())
    night = made_up.night(lab=lab, verdicts=(odd, fault), told=AlarmTold("failed", reason))
    assert len(cases_of(night)) == 4 + 3 + 1
