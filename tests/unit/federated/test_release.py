"""The decision over frozen answers: every site, no mean; and what is asked next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgedeploy.federated.messages import Answer, ConfirmedSaid
from edgedeploy.federated.page import sentences, write_pages
from edgedeploy.federated.release import SiteState, decide, next_step

POINTS: list[Any] = [
    {"target": "onnxruntime", "precision": "int8", "weight_bits": 8},
    {"target": "onnxruntime", "precision": "int8", "weight_bits": 7},
]


def endpoint(gain: float, margin: float = 0.02, metric: str = "dice", spread: float = 0.005) -> dict[str, Any]:
    return {"metric": metric, "gain": gain, "lower": gain - spread, "upper": gain + spread, "margin": margin}


def cell(candidate: int, gain: float, **changes: Any) -> dict[str, Any]:
    one = endpoint(gain)
    word = "non-inferior" if one["lower"] >= -0.02 else "inferior"
    said = {"candidate": candidate, "word": word, "variant": "0" * 16, "artifact": "1" * 16, "cases": 20}
    return {**said, "accuracy": 0.9 + gain, "endpoints": (one,), "lost": 0, "lost_shown": True, **changes}


def answer(*cells: dict[str, Any], pick: int | None, **changes: Any) -> Answer:
    baseline = {"artifact": "2" * 16, "size_bytes": 9, "cases": 20, "accuracy": 0.9, "worst": 0.8}
    board = {"name": "cart", "provenance": "measured", "clock": "wall", "arch": "x86_64", "isa": ("avx2",)}
    said = {"schema": 1, "site": "a", "number": 1, "kind": "measured", "release": "3" * 16, "request_sha256": "4" * 64}
    return Answer.model_validate(
        {**said, "board": board, "baseline": baseline, "cells": cells, "pick": pick, **changes}
    )


def confirmed(*cells: dict[str, Any], pick: int, outcome: str = "confirmed", gain: float = 0.0) -> Answer:
    said = {"outcome": outcome, "cases": 20, "endpoints": (endpoint(gain),)}
    return answer(*cells, pick=pick, number=2, kind="confirmed", confirmed=said)


def state(name: str, *answers: Answer, margin: float = 0.02) -> SiteState:
    return SiteState(name, "dice", margin, answers)


GOOD = cell(0, -0.001)
BAD = cell(0, -0.03)
MENDED = cell(1, -0.002)


def test_one_site_that_fails_refuses_what_the_mean_would_release() -> None:
    states = [state("a", answer(GOOD, pick=0)), state("b", answer(GOOD, pick=0)), state("c", answer(BAD, pick=None))]
    release = decide(states, 1)
    assert release.outcome == "refused" and list(release.failing) == ["c"]
    (mean,) = release.means
    assert mean.within and mean.gain == pytest.approx(-0.032 / 3)
    said = sentences(states, POINTS, release)
    assert "hides c" in said[0] and said[-1] == "Refused: 1 of 3 sites fail."


def test_the_next_candidate_is_tried_at_the_failing_site_alone_and_then_all_are_confirmed() -> None:
    well, ill = state("a", answer(GOOD, pick=0)), state("c", answer(BAD, pick=None))
    assert next_step(well, 2) is None and next_step(ill, 2) == ("measure", 2)
    assert next_step(state("new"), 2) == ("measure", 1)
    assert decide([well, ill], 2).outcome == "undecided"
    mended = state("c", answer(BAD, MENDED, pick=1))
    assert decide([well, mended], 2).outcome == "undecided", "nothing is confirmed yet"
    done = [
        state("a", answer(GOOD, pick=0), confirmed(GOOD, pick=0)),
        state("c", answer(BAD, MENDED, pick=1), confirmed(BAD, MENDED, pick=1)),
    ]
    release = decide(done, 2)
    assert release.outcome == "released" and release.chosen == {"a": 0, "c": 1} and release.mended == {"c": (0,)}


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (confirmed(GOOD, pick=0, outcome="not confirmed"), "not confirmed on the confirmation"),
        (confirmed(GOOD, pick=0, outcome="no number"), "no number on the confirmation"),
        (confirmed(GOOD, pick=0, gain=-0.019), "do not show the margin"),
    ],
)
def test_what_is_not_confirmed_is_refused(last: Answer, why: str) -> None:
    release = decide([state("a", answer(GOOD, pick=0), last)], 2)
    assert release.outcome == "refused" and why in release.failing["a"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (cell(0, -0.018, word="non-inferior"), "not shown"),  # the word says more than the numbers
        (cell(0, -0.001, endpoints=(endpoint(-0.001, margin=0.05),)), "wider than the 0.02 that was agreed"),
        (cell(0, -0.001, endpoints=(endpoint(-0.001, metric="other"),)), "no verdict on dice"),
        (cell(0, -0.001, endpoints=()), "non-inferior"),
        (cell(0, -0.001, lost=2, lost_shown=False, worst_loss=0.4), "2 of 20 cases lose too much"),
        (cell(0, -0.001, endpoints=({**endpoint(-0.001), "lower": None, "upper": None},)), "too few cases"),
        (cell(0, -0.001, word="no verdict", endpoints=(), lost_shown=None), "20 cases there are too few"),
        (cell(0, 0.0, word="failed", failure="BuildError", endpoints=()), r"no number \(BuildError\)"),
    ],
)
def test_a_pick_that_its_numbers_do_not_show_is_none(bad: dict[str, Any], why: str) -> None:
    found = state("a", answer(bad, pick=0))
    assert found.chosen is None
    release = decide([found], 1)
    assert release.outcome == "refused"
    import re

    assert re.search(why, release.failing["a"]), release.failing


def test_a_site_that_could_not_do_it_decides_nothing() -> None:
    failed = answer(pick=None, kind="failed", failure="DataError", exit_code=2, board=None, baseline=None)
    release = decide([state("a", answer(GOOD, pick=0)), state("b", failed)], 2)
    assert release.outcome == "undecided" and release.broken == {"b": "DataError"} and not release.failing
    assert next_step(state("b", failed), 2) is None
    assert ConfirmedSaid(outcome="not opened").endpoints == ()


def test_a_confirmation_of_another_candidate_confirms_nothing() -> None:
    """What was confirmed is gone in the answer itself, or others were measured after it."""
    gone = answer(GOOD, pick=None, number=2, kind="confirmed", confirmed=confirmed(GOOD, pick=0).confirmed.model_dump())  # type: ignore[union-attr]
    after = [answer(GOOD, pick=0), gone]
    assert next_step(state("a", *after), 2) is None, "its confirmation cases were looked at"
    assert decide([state("a", *after)], 2).outcome == "refused"
    later = [*after, answer(GOOD, MENDED, pick=1, number=3)]
    assert decide([state("a", *later)], 2).outcome == "undecided"


@pytest.mark.parametrize("change", [{"cases": 0}, {"endpoints": ({**endpoint(-0.5), "lower": 0.0},)}])
def test_numbers_that_contradict_each_other_show_nothing(change: dict[str, Any]) -> None:
    release = decide([state("a", answer({**GOOD, **change}, pick=0))], 1)
    assert release.outcome == "refused" and not release.chosen
    said = {"outcome": "confirmed", "cases": 20, "endpoints": (endpoint(0.0),), **change}
    claimed = answer(GOOD, pick=0, number=2, kind="confirmed", confirmed=said)
    assert decide([state("a", answer(GOOD, pick=0), claimed)], 1).outcome == "refused"


def test_a_site_with_so_few_cases_that_it_says_no_number_is_told() -> None:
    silent = {**cell(0, 0.0), "word": "not shown", "cases": 3, "endpoints": (), "accuracy": None}
    release = decide([state("a", answer(silent, pick=None))], 1)
    assert release.outcome == "refused" and "3 cases are too few cases to bound a loss" in release.failing["a"]


def test_the_pages_of_a_release_name_the_metric_of_their_numbers(tmp_path: Path) -> None:
    states = [state("a", answer(GOOD, pick=0))]
    write_pages(tmp_path, "lesions", {}, states, POINTS, decide(states, 2))
    for page in ("release.md", "release.html"):
        text = (tmp_path / page).read_text()
        assert "Worst case (dice)" in text and "Loss of dice (bound)" in text and "Latency p99" in text
