"""Small numbers, margins in the metric's own unit, and sums that are held against what was timed."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pytest
from made_up_study import WITHOUT_ITS_TASK

from edgedeploy.errors import SpecError
from edgedeploy.evidence.bootstrap import Estimate
from edgedeploy.evidence.layers import LayerTime, Profile, held_against
from edgedeploy.evidence.quantities import gain_text, quantity, with_span
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.units import human, parse_quantity
from edgedeploy.spec.goals import min_effects_of, rules_of
from edgedeploy.spec.study import StudySpec, parse_spec

METRICS = {"hd95_px": MetricInfo("minimize", "px", "distance"), "dice_mean": MetricInfo("maximize", "1", "Dice")}
MICRO, MU = "\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}"


def test_small_numbers_keep_their_digits() -> None:
    assert quantity(6.6e-07, "reference_rel_l2", "1") == "6.6e-07"
    assert human(6.6e-07, "1") == "6.6e-07"
    assert quantity(0.00066, "reference_rel_l2", "1") == "0.00066"
    assert quantity(0.0, "reference_rel_l2", "1") == "0.000"
    assert with_span(Estimate(6.6e-07, 6.1e-07, 7.25e-07), "reference_rel_l2", "1") == "6.6e-07 (6.1e-07 to 7.25e-07)"
    assert gain_text(-6.6e-07, "reference_rel_l2", "1") == "6.6e-07 worse"
    assert gain_text(1e-17, "dice_mean", "1") == "equal", "rounding of a mean"


@pytest.mark.parametrize("unit", ["us", f"{MICRO}s", f"{MU}s"])
def test_microseconds_are_written_in_every_way_and_read_in_one(unit: str) -> None:
    assert parse_quantity(f"250 {unit}", "ns") == 250_000
    assert human(250_000, "ns") == f"250 {MICRO}s"


def test_joules_have_steps_too() -> None:
    assert parse_quantity(f"3 {MICRO}J", "J") == pytest.approx(3e-6)
    assert quantity(0.0151, "energy_j", "J") == "15.1 mJ"


def spec(effect: str, margin: str) -> StudySpec:
    goals = f"""
[[objectives]]
metric = "hd95_px"
min_effect = {effect}
[[objectives]]
metric = "latency_p50_ns"
min_effect = "200 {MICRO}s"
[pick]
non_inferiority_margin = {margin}
[budget]
trials"""
    text = WITHOUT_ITS_TASK.replace('[[objectives]]\nmetric = "dice_mean"\n', "").replace(
        '[[objectives]]\nmetric = "latency_ratio"\n', ""
    )
    found, source = parse_spec(text.replace("\n[evidence]\nmargin = 0.01\n[budget]\ntrials", goals), Path("study.toml"))
    known = {"onnxruntime": ("float32",), "openvino": ("float32",)}
    found.check(source, architecture={}, task_metrics=METRICS, known_targets=known)
    return found


def test_margins_are_in_the_unit_of_their_metric() -> None:
    table = {**BOARD_METRICS, **METRICS}
    asked = spec('"0.5 px"', '"2 px"')
    assert min_effects_of(asked, table) == {"hd95_px": 0.5, "latency_p50_ns": 200_000}
    assert rules_of(asked, table).margins[0].allowed == 2
    assert rules_of(spec("0.5", "2"), table).margins[0].allowed == 2, "a bare number is in the base unit"


@pytest.mark.parametrize(
    ("effect", "margin", "key"),
    [
        ('"0.5 ms"', '"2 px"', "min_effect"),
        ('"0.5 px"', '"2 %"', "non_inferiority_margin"),
        ('"-1 px"', '"2 px"', "min_effect"),
        ('"0.5 px"', "-1", "non_inferiority_margin"),
    ],
)
def test_a_margin_of_another_unit_is_refused_with_its_key(effect: str, margin: str, key: str) -> None:
    with pytest.raises(SpecError, match=key):
        spec(effect, margin)


def profile(*times_ns: int) -> Profile:
    return Profile(tuple(LayerTime(f"layer {ns}", None, "Conv", "k", "CPU", ns) for ns in times_ns))


def test_the_sum_of_the_layers_is_held_against_the_median() -> None:
    less = held_against(profile(6_000_000, 2_000_000), 10_000_000)
    assert less == (
        "The layers add up to 8 ms in the profile; an inference takes 10 ms (p50). The other 2 ms (20%) passes outside the "
        "layers: copying inputs and outputs, dispatching, waiting for threads."
    )
    more = held_against(profile(9_000_000, 3_000_000), 10_000_000)
    assert "The 2 ms more (20%) is the profiler's own" in more
    assert held_against(profile(), 10_000_000) == held_against(profile(5), None) == ""


RECIPES = sorted(
    path.name for path in resources.files("edgedeploy.study.recipes").iterdir() if path.name.endswith(".toml")
)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_asks_for_its_margins_and_says_what_they_are_of(name: str) -> None:
    text = resources.files("edgedeploy.study.recipes").joinpath(name).read_text(encoding="utf-8")
    recipe = tomllib.loads(text)
    assert all("min_effect" in goal for goal in recipe["objectives"])
    asked = {"margin", "lost_case"} | ({"lost_share"} if name != "codec.toml" else set())  # there none may be lost
    assert asked == set(recipe["evidence"])
    margins = [line for line in text.splitlines() if line.startswith(("min_effect", "margin", "lost_"))]
    assert [line for line in margins if " # " not in line] == []
