"""What a reader of the report finds in it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import made_up
import made_up_report
import numpy as np
import pytest
from report_reader import HOSTILE, Reader

from edgedeploy.errors import StorageError
from edgedeploy.evidence.confirm import confirm
from edgedeploy.records.goals import Constraint
from edgedeploy.report.page_sections import ReportData, render_report, write_report
from edgedeploy.report.pictures import (
    MOST_BYTES,
    CasePicture,
    data_uri,
    picture_rows,
    pictured_cases,
    worst_cases,
)
from edgedeploy.report.terminal import front_table

FOLDED = [
    "Front and baselines",
    "All variants",
    "How the search went",
    "Confirmation",
    "Failures by cause",
    "Where the time went",
    "Environment",
    "How to do it again",
]
"""What is seen when it is asked for."""


@pytest.fixture(scope="module")
def data() -> ReportData:
    return made_up_report.report_data()


@pytest.fixture(scope="module")
def reader(data: ReportData) -> Reader:
    return Reader(render_report(data))


def test_sections_stand_in_the_order_a_reader_asks(reader: Reader) -> None:
    assert list(reader.sections) == [
        "",
        "The answer",
        "The front",
        "Rivals that cannot be told apart",
        "Where it ran, layer by layer",
        "Case by case against the baseline",
        *FOLDED,
    ]


def test_the_answer_names_the_pick_its_numbers_the_reason_and_the_provenance(reader: Reader) -> None:
    top = reader.sections["The answer"]
    assert "Ship openvino int8 w0.75 resolution=128 t2." in top
    assert re.search(r"Dice mean\s+0.846\s+0.830 to 0.862\s+baseline 0.851", top)
    against = r"Against the baseline on 40 cases, its Dice mean is 0\.005 worse \(shown to be at most 0\.00[67] worse\)"
    assert re.search(against, top)
    less = r"Of 1\d variants that meet the limits and cost less than the baseline \(latency vs baseline\)"
    assert re.search(less + r", \d are shown to lose at", top)
    assert "0 of 40 cases lose more than 0.100 of Dice mean; up to 7.2% of cases may (95% bound)" in top
    assert "Confirmed on 40 unseen cases" in top
    assert "are emulated: another machine stands in for the board, and no time is the board's" in top


def test_every_valid_variant_is_in_the_tables_and_the_plot(data: ReportData, reader: Reader) -> None:
    hover = [text for trace in reader.charts["front-chart"]["data"] for text in trace.get("text", ())]  # type: ignore[attr-defined]
    assert len(hover) == len(data.front.rows) == 14
    assert all("emulated" in text for text in hover)
    assert reader.sections["All variants"].count("dominated by") == 6
    for row in (*data.front.members, *data.front.baselines):
        assert row.variant.label in reader.sections["Front and baselines"]


def test_baselines_and_pick_are_marked_apart_in_the_plot(reader: Reader) -> None:
    traces = {str(trace["name"]): trace for trace in reader.charts["front-chart"]["data"] if "name" in trace}
    symbols = {name: trace["marker"]["symbol"] for name, trace in traces.items()}  # type: ignore[index]
    assert len(set(symbols.values())) == len(symbols) - 1 and symbols["float baselines"] == "diamond"
    assert traces["the pick"]["marker"]["size"] > traces["front"]["marker"]["size"]  # type: ignore[index]
    assert "(emulated)" in str(reader.charts["front-chart"]["layout"])


def test_what_failed_and_what_was_invalid_is_named_with_its_cause(reader: Reader) -> None:
    failures = reader.sections["Failures by cause"]
    assert re.search(r"Unsupported +build +2 +no bfloat16 kernel", failures)
    assert "ParityError" in failures
    assert "other processes used 0.81 of a core" in reader.sections["All variants"]


def test_the_time_account_adds_up(data: ReportData, reader: Reader) -> None:
    """Each phase has its own time and share of the whole, by the account that the report was given."""
    text = reader.sections["Where the time went"]
    total_s = sum(data.seconds.values())
    rows = re.findall(r"([a-z]+) +((?:\d+ min )?[\d.]+ m?s) +([\d.]+)%", text.split("Share")[1])
    assert [phase for phase, _, _ in rows] == list(data.seconds)
    for phase, time, share in rows:
        assert float(share) == pytest.approx(100 * data.seconds[phase] / total_s, abs=0.05), phase
        minutes, _, seconds = time.rpartition(" min ")
        told_s = 60 * int(minutes or 0) + float(seconds.split()[0]) * (0.001 if seconds.endswith("ms") else 1)
        assert told_s == pytest.approx(data.seconds[phase], abs=0.51), phase
    assert data.overhead is not None and f"{data.overhead:.1%}" in text
    assert "11 min 52 s of wall time" in text and total_s == pytest.approx(11 * 60 + 52, abs=0.5)


def test_confirmation_is_separate_and_its_openings_are_listed(reader: Reader) -> None:
    text = reader.sections["Confirmation"]
    assert text.lstrip().startswith("Cases that neither training")
    assert "Confirmed on 40 unseen cases" in text
    assert "final report" in text


def test_a_pick_that_fails_confirmation_is_said_to(data: ReportData) -> None:
    assert data.front.pick is not None
    bad = [
        made_up.measurement(
            item.variant, dice=0.70 if item.digest == data.front.pick.digest else 0.84, split=item.split
        )
        for item in data.confirmation
    ]
    pick = next(item for item in confirm(data.front, bad) if item.variant.digest == data.front.pick.digest)
    assert pick.within_margin is False
    text = Reader(render_report(dataclasses.replace(data, confirmation=bad))).sections["Confirmation"]
    assert "Not confirmed on 40 unseen cases" in text


def test_conditions_and_versions_are_there(data: ReportData, reader: Reader) -> None:
    environment, again = reader.sections["Environment"], reader.sections["How to do it again"]
    assert "Made-up CPU" in environment and "avx512_vnni" in environment and "background_cpu_share" in environment
    assert data.command in again and "ab" * 32 in again and 'name = "made-up study"' in again


def test_pictures_are_of_the_worst_cases_with_what_they_scored(data: ReportData, reader: Reader) -> None:
    worst = worst_cases(data.front, data.measurements, 3)
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == 9 and all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    pick = next(item for item in data.measurements if data.front.pick and item.digest == data.front.pick.digest)
    score = pick.cases[worst[0]]["dice_mean"]
    assert f"{worst[0]}, pick's answer: Dice mean {score:.3f}" in [image["alt"] for image in images]


def test_worst_cases_are_those_where_the_pick_loses_most() -> None:
    base, good = made_up.cases(0.85), made_up.cases(0.85)
    good["case-07"] = {**good["case-07"], "dice_mean": 0.1}
    good["case-21"] = {**good["case-21"], "dice_mean": 0.3}
    items = [
        made_up.measurement(per_case=base),
        made_up.measurement(made_up.variant(precision="int8"), per_case=good, latency_ms=2.0),
    ]
    report = made_up_report.front(items, margin=1.0)
    assert worst_cases(report, items, 2) == ("case-07", "case-21")


def test_lost_cases_are_pictured_after_the_worst_and_listed() -> None:
    base, broken = made_up.cases(0.85), made_up.cases(0.85)
    names = sorted(base)[:7]
    for name in names:
        broken[name] = {**broken[name], "dice_mean": 0.2}
    items = [
        made_up.measurement(per_case=base),
        made_up.measurement(made_up.variant("openvino", "int8"), per_case=broken, latency_ms=2.0),
    ]
    front = made_up_report.front(items)
    assert front.pick is None and front.featured == items[1].digest
    assert set(pictured_cases(front, items)) == set(names)
    data = ReportData("lost", front, items, "", "", pictures=[])
    text = Reader(render_report(data)).sections["Case by case against the baseline"]
    assert "7 of 40 cases lose more than" in text and "All 7 lost cases" in text
    assert all(name in text for name in names)
    top = Reader(render_report(data)).sections["The answer"]
    assert f"How sure ({items[1].variant.label})" in top, "of nothing picked, the numbers are of what comes nearest"
    assert "Nothing is shown fit to ship" in top and "That anything may be shipped" in top


def test_pictures_have_a_limit_and_the_worst_case_has_its_own(data: ReportData) -> None:
    large = [CasePicture(f"case-{index:02}", {"truth": np.full((8, 8, 3), index, np.uint8)}) for index in range(3)]
    assert len(picture_rows(large, data.front, data.measurements).rows) == 3
    noise = np.random.default_rng(0).integers(0, 255, (320, 320, 3)).astype(np.uint8)
    many = [CasePicture(f"case-{index:02}", {"truth": noise, "pick": noise}) for index in range(12)]
    rows = picture_rows(many, data.front, data.measurements).rows
    assert 1 <= len(rows) < 12
    assert sum(len(item.uri) for _, shown in rows for item in shown) <= MOST_BYTES


def test_the_same_data_gives_the_same_file(data: ReportData, tmp_path: Path) -> None:
    first = write_report(data, tmp_path / "new" / "one.html").read_bytes()
    assert first == write_report(made_up_report.report_data(), tmp_path / "two.html").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.html"]


def test_a_study_that_nothing_satisfies_says_what_would_have_to_give() -> None:
    report = made_up_report.front(constraints=[Constraint("latency_p50_ns", at_most=1e5)])
    data = made_up_report.report_data(front=report, pictures=(), confirmation=())
    top = Reader(render_report(data)).sections["The answer"]
    assert "No variant can be recommended." in top
    assert "None of 14 variants meets latency_p50_ns at most 100 \N{MICRO SIGN}s" in top
    assert "What would have to give" in top


def test_an_empty_study_has_a_report() -> None:
    report = made_up_report.front([])
    reader = Reader(render_report(ReportData("empty", report, [], "", "")))
    assert "No variant can be recommended." in reader.sections["The answer"]
    assert "No valid variant has both metrics" in reader.sections["The front"]
    assert "not opened" in reader.sections["Confirmation"]


def test_the_baseline_is_not_shipped_in_its_own_place() -> None:
    items = [made_up.measurement()]
    report = made_up_report.front(items)
    reader = Reader(render_report(made_up_report.report_data(front=report, measurements=items, pictures=())))
    assert "no variant that meets the limits costs less than the float baseline" in reader.sections["The answer"]
    assert "What is shown is the baseline itself." in reader.sections["Case by case against the baseline"]


def test_pictures_are_rgb_bytes_and_shrunk() -> None:
    with pytest.raises(ValueError, match="uint8"):
        data_uri(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]
    small = data_uri(np.zeros((20, 20, 3), np.uint8))
    large = data_uri(np.zeros((2000, 2000, 3), np.uint8))
    assert small.startswith("data:image/png") and len(large) < 4000


class TestTerminal:
    def test_the_table_has_the_front_the_baselines_and_the_answer(self, data: ReportData) -> None:
        table = front_table(data.front)
        assert table.title == "Front: made-up board, emulated"
        assert all(len(row) == len(table.headers) for row in table.rows)
        assert [row[0] for row in table.rows].count("*") == 1
        roles = [row[1].partition("(")[2] for row in table.rows if "(" in row[1]]
        assert sorted(roles) == ["baseline of openvino)", "baseline)"]  # no two rows have one name
        assert table.notes[0].startswith("Ship openvino int8 w0.75 resolution=128 t2.")
        assert any("1 invalid run" in note for note in table.notes)

    def test_a_missing_number_is_a_dash(self) -> None:
        items = [made_up.measurement(), made_up.measurement(made_up.variant("openvino"), without=["latency_ratio"])]
        table = front_table(made_up_report.front(items))
        column = table.headers.index("Latency vs baseline")
        row = next(row for row in table.rows if row[1].startswith("openvino"))
        assert row[column] == "-" and "no latency_ratio: test" in row[-1]

    def test_nothing_to_recommend_is_one_short_note(self) -> None:
        table = front_table(made_up_report.front([]))
        assert table.rows == () and table.notes == ("No variant can be recommended.",)


def test_latency_under_load_is_drawn_over_time(data: ReportData) -> None:
    """Made-up windows of 10 s; the page shows the pick beside the baseline."""
    windows = [{"start_ns": 10_000_000_000 * i, "queries": 9, "p50_ns": 2_000_000 + 10_000 * i} for i in range(6)]
    loaded = [
        dataclasses.replace(item, scenarios={"sustained": {"windows": windows, "conditions": []}})
        for item in data.measurements
    ]
    page = Reader(render_report(dataclasses.replace(data, measurements=loaded)))
    assert "A line that climbs" in page.sections["Under load for minutes"]
    lines = page.charts["sustained-chart"]["data"]
    assert len(lines) == 2
    assert lines[0]["x"] == pytest.approx([i / 6 for i in range(6)])
    assert lines[0]["y"] == pytest.approx([2.0 + 0.01 * i for i in range(6)])  # ms


def test_a_study_without_sustained_load_has_no_section_for_it(reader: Reader) -> None:
    assert "Under load for minutes" not in reader.sections
    assert "sustained-chart" not in reader.charts


def test_how_the_models_were_trained_is_shown(data: ReportData, reader: Reader) -> None:
    assert "Training" not in reader.sections, "a study without training has no section for it"
    host = {"cpu": HOSTILE, "isa": ["avx2", "fma"], "isa_limit": "AVX2", "native_bfloat16": False}
    one = {"epochs": 8, "precision": "float32", "wall_s": 20.0}
    elastic = {"epochs": 60, "precision": "float32", "wall_s": 90.0, "widths": 5}
    training = {"epochs": 36, "precision": "float32", "wall_s": 72.0, "host": host}
    page = Reader(render_report(dataclasses.replace(data, training=training, trainings=[one, elastic, one, one])))
    text = page.sections["Training"]
    assert "36 epochs in float32, 1 min 12 s" in text
    assert "avx2, fma" in text and "Limit of oneDNN" in text
    assert "no: emulated it is slower than float32, and not used" in text
    assert "3 in float32, 1 min 0 s" in text
    assert "60 epochs in float32, 1 min 30 s, for 5 models" in text
    assert HOSTILE in text, "shown as text, and as nothing else"


def test_a_place_that_no_report_can_have_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "report.html"):
        with pytest.raises(StorageError, match="Name another file with --out"):
            write_report(made_up_report.report_data(), place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
