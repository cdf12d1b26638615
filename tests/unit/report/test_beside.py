"""Whose time stands beside a variant's: that of the baseline which ran interleaved with it, and no other's."""

from __future__ import annotations

import dataclasses
import re

import made_up
import made_up_report
import pytest

from edgedeploy.evidence.front import Front, build_front
from edgedeploy.evidence.interleaved import baseline_beside
from edgedeploy.evidence.verdict import Verdict
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.page_sections import ReportData, render_report
from edgedeploy.report.plot import hover_text
from edgedeploy.report.terminal import front_table
from edgedeploy.report.words import answer, baseline_text
from edgedeploy.study.front import reason_of_pick

OWN_SESSION_MS = 1470.0
"""The baseline in its own session, when the board was busy."""


def measurements() -> list[Measurement]:
    return [
        made_up.measurement(latency_ms=OWN_SESSION_MS, baseline_ms=OWN_SESSION_MS),
        made_up.measurement(
            made_up.variant(precision="int8"), latency_ms=748.0, baseline_ms=770.0, size_bytes=300_000, seed=2
        ),
    ]


@pytest.fixture(scope="module")
def front() -> Front:
    return made_up_report.front(measurements(), margin=0.1)


def test_the_headline_has_the_baseline_of_the_same_run(front: Front) -> None:
    said = " ".join(answer(front))
    assert re.search(r"Latency p50 74\d ms \([^)]*\), baseline beside it 7[67]\d ms", said)
    assert "1.47 s" not in said
    assert "Size 300 KB, baseline 1.20 MB" in said, "sizes belong to files, not to sessions"


def test_the_terminal_and_json_have_it_too(front: Front) -> None:
    shown = front_table(front)
    place = shown.headers.index("Latency p50")
    cells = {row[1]: row[place] for row in shown.rows}
    (variant,) = [text for label, text in cells.items() if "int8" in label]
    assert re.search(r"74\d ms\n.*\nbaseline beside it 7[67]\d ms", variant)
    (own,) = [text for label, text in cells.items() if "(baseline)" in label]
    assert "1.47 s" in own and "beside" not in own
    assert any("A baseline's own line is another session" in note for note in shown.notes)
    rows = {row["variant"]["precision"]: row["baseline_beside"] for row in front.as_json()["rows"]}
    assert rows["int8"]["latency_p50_ns"] == pytest.approx(770e6, rel=0.01)
    assert rows["float32"] == {}


def test_whatever_says_ship_says_what_of_its_time_is_not_shown(front: Front) -> None:
    assert front.pick is not None
    rows = [
        dataclasses.replace(row, verdict=Verdict("too few rounds", 0.94, None, None, 4))
        if row.digest == front.pick.digest
        else row
        for row in front.rows
    ]
    few = dataclasses.replace(front, rows=rows)
    missing = "that it is faster than the baseline beside it (4 rounds; 8 are needed: 128 queries in blocks of 8)"
    shown = front_table(few)
    assert f"Not shown: {missing}." in " ".join(shown.notes)
    (cell,) = [row[shown.headers.index("than baseline")] for row in shown.rows if row[0] == "*"]
    assert cell == "too few rounds: 4 of 8"
    assert reason_of_pick(few) == f"{front.pick.reason}; not shown: {missing}"
    assert (
        "of 1 variant that meets the limits and costs less than the baseline (latency vs baseline), 1"
        in front.pick.reason
    )
    assert f"T{missing[1:]}." in render_report(ReportData("made up", few, measurements(), "", ""))
    faster = dataclasses.replace(
        few, rows=[dataclasses.replace(r, verdict=Verdict("faster", 0.9, 0.8, 0.95, 9)) for r in rows]
    )
    assert reason_of_pick(faster) == front.pick.reason
    assert "Not shown" not in " ".join(front_table(faster).notes)


def test_the_page_names_it_in_tiles_and_tables(front: Front) -> None:
    page = render_report(ReportData("made up", front, measurements(), "", ""))
    tiles = page.partition('<dl class="tiles">')[2].partition("</dl>")[0]
    assert "baseline beside it 76" in tiles and "1.47 s" not in tiles
    assert page.count("baseline beside it 76") >= 3, "tile, table of the front, table of all variants"


def test_a_run_without_a_baseline_has_none_beside_it(front: Front) -> None:
    alone = made_up.measurement(made_up.variant(precision="int8"), baseline_ms=None, without=["latency_ratio"])
    assert baseline_beside(alone) == {}
    report = made_up_report.front([measurements()[0], alone], margin=1.0)
    row = report.row(alone.digest)
    assert row is not None
    assert baseline_text(row, "latency_p50_ns", report) == "", "not that of another session"


def test_energy_is_that_of_the_same_run_too() -> None:
    samples = [[step * 10_000_000, 2.0 if step < 30 else 6.0 if step < 60 else 4.0] for step in range(121)]
    power = {
        "source": "made-up rail",
        "scope": "board",
        "kind": "power",
        "samples": samples,
        "waits": [[0, 290_000_000]],
        "stretches": [
            {"side": "candidate", "start_ns": 610_000_000, "end_ns": 1_200_000_000, "queries": 10},
            {"side": "baseline", "start_ns": 310_000_000, "end_ns": 590_000_000, "queries": 10},
        ],
    }
    item = made_up.measurement(made_up.variant(precision="int8"), environment={"energy": power})
    item = made_up.measurement(item.variant, environment=item.environment, metrics={**item.metrics, "energy_j": 0.118})
    assert baseline_beside(item)["energy_j"] == pytest.approx(0.112, rel=0.02)


def test_an_objective_on_time_puts_no_other_session_beside_it() -> None:
    report = made_up_report.front(measurements(), margin=0.1)
    assert Objective("latency_ratio", "minimize") in report.objectives
    assert "1.47" not in " ".join(answer(report))


def test_the_plot_says_whose_time_stands_beside_a_point() -> None:
    report = made_up_report.front(measurements(), margin=0.1)
    row = next(row for row in report.rows if row.beside)
    assert "baseline beside it 76" in hover_text(row, report)
    by_time = build_front(
        measurements(),
        (made_up_report.DICE, Objective("latency_p50_ns", "minimize")),
        baseline_digests=[made_up.variant().digest],
        margin=0.1,
        metrics=made_up.TASK_METRICS,
    )
    page = render_report(ReportData("made up", by_time, measurements(), "", ""))
    assert "Each point is a session of its own" in page
