"""What a user may rely on when reading a number, an interval or the cause of an invalid run."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import made_up
import numpy as np
import pytest

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.bootstrap import (
    Pool,
    Resampler,
    confirms_dominance,
    drawn_units,
    generator,
    resampled_medians,
)
from edgedeploy.evidence.statistics import stability, summarise_cases
from edgedeploy.records.goals import Objective

DICE = Objective("dice_mean", "maximize")
RATIO = Objective("latency_ratio", "minimize")


def test_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        values = 0.8 + rng.normal(0, 0.05, 40)
        per_case = {f"{i:02d}": {"dice_mean": float(v)} for i, v in enumerate(values)}
        item = made_up.measurement(per_case=per_case, seed=trial)
        estimate = Resampler(trial, resamples=400).estimate(item, "dice_mean")
        assert estimate.low is not None and estimate.high is not None
        hits += estimate.low <= 0.8 <= estimate.high
    assert 175 <= hits <= 199


def test_resampled_percentiles_agree_with_drawing_and_sorting() -> None:
    rng = np.random.default_rng(0)
    blocks = [tuple(rng.integers(100, 900, 8 if i else 5)) for i in range(20)]
    counts = generator(1, "x").multinomial(20, np.full(20, 1 / 20), size=50)
    fast = Pool(blocks, counts.T.astype(np.int32)).percentiles(90)
    for row, value in zip(counts, fast, strict=True):
        pool = sorted(n for block, times in zip(blocks, row, strict=True) for n in block * times)
        assert value == pool[math.ceil(0.9 * len(pool)) - 1]


@pytest.mark.parametrize("units", [5, 8, 84])
def test_resampled_medians_are_the_medians_of_what_is_drawn(units: int) -> None:
    values = np.random.default_rng(2).integers(0, 9, units) / 7  # with ties
    places = drawn_units(3, units, 60)
    assert np.array_equal(resampled_medians(values, places), np.median(values[places], axis=1))


def test_draws_of_two_variants_times_are_independent_although_they_share_a_table() -> None:
    """One series under two digests: if draw met draw, their difference would be nothing."""
    ours = made_up.measurement(seed=4)
    theirs = made_up.measurement(made_up.variant(width=0.5), seed=4)
    found = Resampler(0).compare(ours, theirs, RATIO)
    alone = Resampler(0).estimate(ours, "latency_ratio")
    assert found.gain == 0
    assert found.lower is not None and alone.low is not None and alone.high is not None
    assert found.lower < 0.8 * (alone.low - alone.high) / 2, "at 99 %, and wider by the other's spread"


def test_paired_comparison_sees_a_small_shift_that_unpaired_intervals_cannot() -> None:
    ours = made_up.measurement(made_up.variant(width=0.5), dice=0.860, seed=1)
    theirs = made_up.measurement(dice=0.852, seed=2)
    resampler = Resampler(0)
    high = resampler.estimate(theirs, "dice_mean").high
    assert high is not None and high > resampler.estimate(ours, "dice_mean").value
    found = resampler.compare(ours, theirs, DICE)
    assert found.method == "paired cases" and found.units == 40
    assert found.shows_more_than(0.005) and not found.shows_at_least(0.012)


def test_gain_is_positive_for_the_better_side_whichever_way_the_metric_points() -> None:
    fast = made_up.measurement(made_up.variant(width=0.5), latency_ms=3.0)
    slow = made_up.measurement(latency_ms=6.0, seed=3)
    found = Resampler(0).compare(fast, slow, RATIO)
    assert found.gain == pytest.approx(0.5, abs=0.02)
    assert found.lower is not None and found.upper is not None
    assert found.lower < found.gain < found.upper
    assert Resampler(0).compare(slow, fast, RATIO).gain == pytest.approx(-found.gain)


def test_cases_undefined_on_one_side_leave_the_pairing() -> None:
    ours = made_up.cases(0.9)
    theirs = made_up.cases(0.8)
    for case in list(ours)[:30]:
        ours[case] = {**ours[case], "dice_mean": None}  # type: ignore[dict-item]
    pair = (made_up.measurement(per_case=ours), made_up.measurement(made_up.variant(width=0.5), per_case=theirs))
    assert Resampler(0).compare(*pair, DICE).units == 10


def test_too_few_cases_show_nothing() -> None:
    few = {f"{i}": {"dice_mean": 0.9} for i in range(4)}
    ours = made_up.measurement(per_case=few)
    theirs = made_up.measurement(made_up.variant(width=0.5), per_case={k: {"dice_mean": 0.1} for k in few})
    found = Resampler(0).compare(ours, theirs, DICE)
    assert found.method == "too few" and not found.shows_at_least(-1.0)
    assert Resampler(0).estimate(ours, "dice_mean").low is None


def test_dominance_needs_a_real_gain_somewhere_and_no_real_loss_anywhere() -> None:
    base = made_up.measurement(dice=0.85, latency_ms=6.0, seed=1)
    resampler = Resampler(0)

    def confirmed(dice: float, latency_ms: float) -> bool:
        ours = made_up.measurement(made_up.variant(width=0.5), dice=dice, latency_ms=latency_ms, seed=2)
        return confirms_dominance([resampler.compare(ours, base, goal) for goal in (DICE, RATIO)], [0.005, 0.02])

    assert confirmed(0.851, 3.0)
    assert not confirmed(0.840, 3.0)
    assert not confirmed(0.851, 5.97)


def test_same_seed_gives_the_same_numbers_whatever_was_asked_before() -> None:
    item = made_up.measurement()
    first, second = Resampler(3), Resampler(3)
    second.estimate(item, "latency_ratio")
    assert first.estimate(item, "dice_mean") == second.estimate(item, "dice_mean")
    assert first.estimate(item, "dice_mean") != Resampler(4).estimate(item, "dice_mean")


def test_summary_is_the_mean_over_defined_cases_and_names_the_worst() -> None:
    found = summarise_cases({"a": {"d": 0.9}, "b": {"d": None}, "c": {"d": 0.3}, "e": {}}, "d")
    assert found is not None
    assert (found.mean, found.defined, found.total, found.worst_case) == (pytest.approx(0.6), 2, 4, "c")
    lower_is_better = summarise_cases({"a": {"d": 9.0}, "c": {"d": 3.0}}, "d", "minimize")
    assert lower_is_better is not None and lower_is_better.worst_case == "a"
    assert summarise_cases({"b": {"d": None}}, "d") is None


def test_a_nan_from_a_task_is_refused_with_its_case() -> None:
    with pytest.raises(MeasurementError, match="case b has nan"):
        summarise_cases({"a": {"d": 0.9}, "b": {"d": float("nan")}}, "d")


def test_quiet_board_is_stable() -> None:
    assert stability(made_up.side(6.0), {"background_cpu_share": 0.1}, made_up.LIMITS) is None


def test_a_few_interruptions_on_a_shared_host_are_not_a_drift() -> None:
    calm = made_up.side(6.0)
    blocks = [list(block) for block in calm.blocks_ns]
    for index in range(0, len(blocks), 9):
        blocks[index] = [8 * n for n in blocks[index]]
    noisy = made_up.RawSide(**{**calm.__dict__, "blocks_ns": tuple(tuple(block) for block in blocks)})
    assert stability(noisy, {}, made_up.LIMITS) is None


@pytest.mark.fault(20, 21, 22, simulated="the snapshots")
@pytest.mark.parametrize(
    ("side", "environment", "cause"),
    [
        (made_up.side(6.0, drift=0.8), {}, "became 33 % slower"),
        (made_up.side(6.0), {"scenarios": {"background_cpu_share": 0.8}}, "0.80 of a core"),
        (made_up.side(6.0), {"background_cpu_share": 0.9}, "0.90 of a core"),
        (made_up.side(6.0), {"before": {"governor": "performance"}, "after": {"governor": "powersave"}}, "governor"),
        (
            made_up.side(6.0),
            {"before": {"throttle_count": {"core0": 3}}, "after": {"throttle_count": {"core0": 5}}},
            "throttled 2 times",
        ),
    ],
)
def test_drifted_conditions_are_named(side: made_up.RawSide, environment: dict[str, object], cause: str) -> None:
    found = stability(side, environment, made_up.LIMITS)
    assert found is not None
    assert re.search(cause, found)


def test_blocks_that_scatter_are_no_drift() -> None:
    steady = replace(made_up.LIMITS, max_drift=10.0)
    found = stability(made_up.side(6.0, noise=1.5), {}, steady)
    assert found is not None and "scatter by 100 % of their median" in found
    assert stability(made_up.side(6.0, noise=1.5), {}, replace(steady, max_spread=1.1)) is None


def test_limits_are_the_users() -> None:
    drifting = made_up.side(6.0, drift=0.8)
    assert stability(drifting, {}, replace(made_up.LIMITS, max_drift=1.0)) is None


def test_what_is_just_above_a_limit_does_not_read_as_the_limit() -> None:
    limits = replace(made_up.LIMITS, max_drift=0.25, max_background_cores=0.5)
    for share, told in (
        (0.5004, "used 0.5004 of a core during the run; at most 0.5 is"),
        (0.62, "used 0.62 of a core"),
    ):
        assert told in str(stability(made_up.side(6.0), {"background_cpu_share": share}, limits))
    drifting = made_up.side(6.0, drift=0.8)
    drift = float(re.search(r"became (\S+) % slower", str(stability(drifting, {}, limits)))[1]) / 100  # type: ignore[index]
    told = str(stability(drifting, {}, replace(limits, max_drift=drift - 0.003)))
    found, most = (float(text) for text in re.findall(r"([0-9.]+) %", told))
    assert found > most == pytest.approx(100 * drift - 0.3)
