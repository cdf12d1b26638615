"""How a search went, against fronts whose volumes and shares can be worked out by hand."""

from __future__ import annotations

import dataclasses
import html
import itertools
from typing import Any

import made_up
import made_up_report
import numpy as np
import plotly.graph_objects
import pytest

from edgedeploy.errors import SpecError
from edgedeploy.evidence.importance import FEWEST, importances, settings_of
from edgedeploy.records.goals import Constraint, Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.report.blocks import Chart, Section, Summary, Text
from edgedeploy.report.html import page
from edgedeploy.report.search_plots import MOST_LINES, MOST_POINTS, drawn_rows, hypervolume_figure, parallel_figure
from edgedeploy.report.search_section import search_section
from edgedeploy.search.improvement import hypervolume
from edgedeploy.study.progress import Progress, Step, _volumes, progress_of

ACCURACY = Objective("dice_mean", "maximize")
LATENCY = Objective("latency_p50_ns", "minimize")
SIZE = Objective("size_bytes", "minimize")
BASELINE = made_up.measurement()
VARIANTS = [
    made_up.variant("openvino", precision, width) for precision in ("int8", "float32") for width in (0.5, 0.25, 0.75)
]


def measured(index: int, minute: int, dice: float, ms: float, size: float = 1e6, **changes: Any) -> Measurement:
    """A measurement of exactly these values; number -1 is the baseline's."""
    of = BASELINE.variant if index < 0 else VARIANTS[index]
    metrics = {"dice_mean": dice, "latency_p50_ns": ms * 1e6, "size_bytes": size, "peak_memory_bytes": 1e8}
    when = f"2026-01-01T00:{minute:02d}:00+00:00"
    return dataclasses.replace(BASELINE, **{"variant": of, "metrics": metrics, "created_utc": when, **changes})


def progress(items: list[Measurement], *goals: Objective, began: str = "", **changes: Any) -> Progress:
    empty = made_up_report.front([])
    front = dataclasses.replace(
        empty, objectives=goals or (ACCURACY, LATENCY), reference=BASELINE.digest, **{"constraints": (), **changes}
    )
    return progress_of(front, items, began)


FOUR = [
    measured(0, 2, dice=0.7, ms=2.0),
    measured(-1, 0, dice=0.8, ms=10.0),
    measured(2, 9, dice=0.9, ms=6.0),
    measured(1, 5, dice=0.8, ms=4.0),
]


def test_the_volume_after_each_evaluation_is_that_of_the_front_by_then() -> None:
    """The box is 0.7 to 0.9 by 10 ms to 2 ms, so the points are (0.5, 1), (0, 0), (0.5, 0.75), (1, 0.5)."""
    found = progress(FOUR, began="2025-12-31T23:30:00+00:00")
    assert found.reference == pytest.approx({"dice_mean": 0.7, "latency_p50_ns": 10e6})
    assert found.best == pytest.approx({"dice_mean": 0.9, "latency_p50_ns": 2e6})
    assert [step.volume for step in found.steps] == pytest.approx([0.0, 0.0, 0.375, 0.625])
    assert [step.elapsed_s for step in found.steps] == [1800, 1920, 2100, 2340]
    assert found.steps[0].label == BASELINE.variant.label


def test_three_objectives_make_a_volume() -> None:
    """Scaled to gains: (0.5, 0.5, 0.5), then (1, 0.25, 0.25), (0, 1, 1) and (0.25, 0, 1) on an edge: 1/8 + 1/2 * 1/16."""
    items = [
        measured(-1, 0, dice=0.7, ms=10.0, size=9e6),
        measured(0, 1, dice=0.8, ms=6.0, size=5e6),
        measured(1, 2, dice=0.9, ms=8.0, size=7e6),
        measured(2, 3, dice=0.7, ms=2.0, size=1e6),
        measured(3, 4, dice=0.75, ms=10.0, size=1e6),
    ]
    found = progress(items, ACCURACY, LATENCY, SIZE)
    assert [step.volume for step in found.steps] == pytest.approx([0, 0.125, 0.15625, 0.15625, 0.15625])


def test_what_misses_a_limit_or_is_invalid_adds_nothing() -> None:
    heavy = {**FOUR[2].metrics, "peak_memory_bytes": 2e9}
    items = [*FOUR[:2], dataclasses.replace(FOUR[2], metrics=heavy), FOUR[3]]
    limit = (Constraint("peak_memory_bytes", at_most=1e9),)
    found = progress(items, constraints=limit)
    assert [step.volume for step in found.steps] == pytest.approx([0, 0, 0.75, 0.75])  # the box ends at a Dice of 0.8
    assert found.best["dice_mean"] == 0.8
    drifted = dataclasses.replace(FOUR[2], valid=False, cause="it drifted")
    assert len(progress([*FOUR[:2], drifted, FOUR[3]]).steps) == 3
    nobody = progress(FOUR, constraints=(Constraint("size_bytes", at_most=1.0),))
    assert not nobody.steps and "no variant meets the limits" in nobody.missing


def test_without_a_baseline_the_worst_feasible_value_is_the_reference() -> None:
    found = progress([item for item in FOUR if item.digest != BASELINE.digest])
    assert found.reference == pytest.approx({"dice_mean": 0.7, "latency_p50_ns": 6e6})
    slower = [FOUR[1], measured(0, 1, dice=0.7, ms=12.0)]
    assert "better than the reference in latency" in progress(slower).missing.replace("p50 ", "")


def test_measurements_of_two_provenances_are_refused() -> None:
    with pytest.raises(SpecError, match="emulated and measured"):
        progress([*FOUR, measured(3, 10, dice=0.9, ms=1.0, provenance="measured")])


@pytest.mark.parametrize("goals", [(ACCURACY,), (ACCURACY, LATENCY, SIZE, Objective("peak_memory_bytes", "minimize"))])
def test_other_numbers_of_objectives_have_no_hypervolume_and_say_so(goals: tuple[Objective, ...]) -> None:
    found = progress(FOUR, *goals)
    assert not found.steps
    assert f"this study has {len(goals)}" in found.missing


def test_a_date_that_cannot_be_read_costs_the_plot_against_time_alone() -> None:
    broken = [*FOUR[:3], dataclasses.replace(FOUR[3], created_utc="noon")]
    steps = progress(broken).steps
    assert [step.elapsed_s for step in steps] == [0, 120, 540, None]
    assert steps[-1].volume == pytest.approx(0.625)


@pytest.mark.parametrize("objectives", [2, 3])
def test_adding_up_gives_the_volume_of_the_whole(objectives: int) -> None:
    points = np.random.default_rng(3).uniform(0, 1.1, (60, objectives))
    whole = [hypervolume(points[:end], np.ones(objectives)) for end in range(1, 61)]
    assert list(_volumes(points)) == pytest.approx(whole)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    steps = [Step(f"<{index}>", index / 2000, index * 60.0) for index in range(1000)]
    trace = hypervolume_figure(steps, over_time=False)["data"][0]
    assert len(trace["x"]) == MOST_POINTS
    assert (trace["x"][0], trace["x"][-1], trace["y"][-1]) == (1, 1000, 0.4995)
    assert trace["text"][0] == "&lt;0&gt;"
    flat = [Step("a", 0.5, 60.0 * index) for index in range(1000)]
    assert hypervolume_figure(flat, over_time=True)["data"][0]["x"] == [0, 16.65]


GRID = list(itertools.product(("int8", "float32"), (0.25, 0.5, 0.75, 1.0), (1, 2)))
GRID_VARIANTS = [made_up.variant("openvino", precision, width, threads) for precision, width, threads in GRID]


def test_shares_are_those_that_the_values_were_made_of() -> None:
    """Balanced settings explain their own variances: 4 of +-2, and 5/4 of the widths' -1.5 to 1.5."""
    linear = [{"dice_mean": 2.0 * (p == "int8") * 2 - 2 + 4 * w, "latency_p50_ns": 1e6 * 4.0**w} for p, w, _ in GRID]
    found = importances(GRID_VARIANTS, linear, (ACCURACY, LATENCY))
    assert found.shares["dice_mean"] == pytest.approx({"precision": 4 / 5.25, "width": 1.25 / 5.25, "threads": 0.0})
    assert found.shares["latency_p50_ns"] == pytest.approx({"precision": 0, "width": 1, "threads": 0}, abs=1e-9)
    assert (found.logarithmic, found.variants) == (("latency_p50_ns",), 16)


def test_what_settings_do_only_together_is_not_explained() -> None:
    crossed = [{"dice_mean": float((p == "int8") == (t == 1))} for p, _, t in GRID]
    found = importances(GRID_VARIANTS, crossed, (ACCURACY,))
    assert sum(found.shares["dice_mean"].values()) == pytest.approx(0, abs=1e-9)


def test_settings_that_changed_together_share_what_either_explains() -> None:
    variants = [made_up.variant("openvino", p, w, 1 if p == "int8" else 2) for p, w, _ in GRID]
    found = importances(variants, [{"dice_mean": float(v.precision == "int8")} for v in variants], (ACCURACY,))
    assert found.shares["dice_mean"] == pytest.approx({"precision": 0.5, "width": 0, "threads": 0.5}, abs=1e-9)


def test_noise_explains_little() -> None:
    """Four columns explain 4/15 of anything by chance, on the average of 200 kinds of noise."""
    noise = np.random.default_rng(5).normal(size=(len(GRID), 200))
    goals = [Objective(f"noise-{index}", "maximize") for index in range(200)]
    values = [{goal.metric: float(value) for goal, value in zip(goals, row, strict=True)} for row in noise]
    found = importances(GRID_VARIANTS, values, goals)
    assert np.mean([sum(shares.values()) for shares in found.shares.values()]) < 0.5 * 4 / 15


def test_few_variants_have_no_importances() -> None:
    values = [{"dice_mean": index / 10} for index in range(len(GRID))]
    found = importances(GRID_VARIANTS[: FEWEST - 1], values[: FEWEST - 1], (ACCURACY,))
    assert (found.shares, "there are 11" in found.missing) == ({}, True)
    names = [made_up.variant(width=0.5, stem=f"kind {index}") for index in range(16)]
    assert "need 32 measured variants" in importances(names, values, (ACCURACY,)).missing
    same = importances(GRID_VARIANTS, [{"dice_mean": 0.5}] * 16, (ACCURACY,))
    assert set(same.shares["dice_mean"].values()) == {0.0}


def test_settings_are_those_in_which_variants_differ() -> None:
    few = [made_up.variant("openvino", "int8", 0.5, resolution=96), made_up.variant("openvino", "int8", 1.0)]
    assert settings_of(few) == {"width": [0.5, 1.0], "resolution": [96, 128]}


def section(**changes: Any) -> Section:
    found = search_section(made_up_report.report_data(**changes))
    assert found is not None
    return found


def charts(found: Section) -> dict[str, Chart]:
    return {block.id: block for block in found.blocks if isinstance(block, Chart)}


def test_the_section_has_all_charts_and_plotly_takes_them() -> None:
    found = charts(section())
    assert list(found) == ["progress-chart", "progress-time-chart", "parallel-chart", "importance-chart"]
    for chart in found.values():
        plotly.graph_objects.Figure(chart.figure)  # raises for what plotly does not know
    assert max(found["progress-chart"].figure["data"][0]["y"]) > 0
    assert [trace["name"] for trace in found["parallel-chart"].figure["data"]] == [
        "dominated",
        "front",
        "float baselines",
    ]


def test_every_variant_is_a_line_at_the_place_of_its_values() -> None:
    front = made_up_report.front()
    figure = parallel_figure(front)
    titles = list(figure["layout"]["xaxis"]["ticktext"])
    assert titles == ["target", "precision", "width", "resolution", "Dice mean", "Latency vs baseline"]
    lines = sum(trace["x"].count(None) for trace in figure["data"])
    assert lines == len(front.rows) == 14
    base = next(trace for trace in figure["data"] if trace["name"] == "float baselines")
    at = next(i for i, text in enumerate(base["text"]) if text.startswith("onnxruntime float32"))
    target, precision, width, resolution, dice, _ = base["y"][at : at + 6]
    assert (target, precision, width, resolution) == (0.0, 0.5, 1.0, 1.0)
    assert dice > 0.99


def test_large_studies_are_drawn_in_part_and_that_is_said() -> None:
    front = made_up_report.front()
    plain = next(row for row in front.rows if row.status == "dominated" and not row.baseline)
    many = [dataclasses.replace(plain, variant=dataclasses.replace(plain.variant, threads=n)) for n in range(3, 990)]
    large = dataclasses.replace(front, rows=(*front.rows, *many))
    drawn = drawn_rows(large)
    assert len(drawn) == MOST_LINES < 1000 < len(large.rows)
    assert {row.digest for row in large.shown} <= {row.digest for row in drawn}
    told = [block.text for block in section(front=large).blocks if isinstance(block, Text)]
    assert any(f"{MOST_LINES} of {len(large.rows)} variants" in text for text in told)


def test_what_is_left_out_is_said() -> None:
    small = made_up_report.measurements()[:3]
    one = dataclasses.replace(made_up_report.front(small), objectives=(made_up_report.DICE,))
    found = section(front=one, measurements=small)
    told = " ".join(block.text for block in found.blocks if isinstance(block, Text))
    assert list(charts(found)) == ["parallel-chart"]
    assert "this study has 1" in told and "there are 3" in told
    assert (
        search_section(made_up_report.report_data(front=made_up_report.front(small[:1]), measurements=small[:1]))
        is None
    )


@pytest.mark.filterwarnings("error")
def test_absurd_values_of_a_damaged_file_cost_no_page() -> None:
    items = made_up_report.measurements()
    rows = []
    for index, row in enumerate(made_up_report.front().rows):
        huge = {
            name: dataclasses.replace(each, value=(-1.7e308, 1.7e308)[index % 2])
            for name, each in row.estimates.items()
        }
        arch = (("resolution", (10**400, 3.0, 1e300)[index % 3]),)
        rows.append(dataclasses.replace(row, estimates=huge, variant=dataclasses.replace(row.variant, arch=arch)))
    huge_items = [
        dataclasses.replace(item, metrics=dict.fromkeys(item.metrics, (-1.7e308, 1.7e308)[index % 2]))
        for index, item in enumerate(items)
    ]
    found = section(
        front=dataclasses.replace(made_up_report.front(), rows=tuple(rows), constraints=()), measurements=huge_items
    )
    assert page(Summary("made up", "measured", "", False, "", ()), [found])


def test_names_of_others_are_text_in_every_chart() -> None:
    word = "<img src=x onerror=alert(1)>"
    items = made_up_report.measurements()
    named = [
        dataclasses.replace(item, variant=dataclasses.replace(item.variant, arch=((word, f"{word}{index % 2}"),)))
        for index, item in enumerate(items)
    ]
    found = section(front=made_up_report.front(named, baseline_digests=[named[0].digest]), measurements=named)
    shown = str([chart.figure for chart in charts(found).values()])
    assert html.escape(word) in shown and "<img" not in shown
    assert "<img src=x" not in page(Summary("made up", "measured", "", False, "", ()), [found])
