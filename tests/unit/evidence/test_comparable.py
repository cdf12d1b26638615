"""Which measurements may stand on one front, and what small parts of the evidence say at their limits."""

from __future__ import annotations

from collections.abc import Callable

import made_up
import made_up_report
import numpy as np
import pytest

from edgedeploy.errors import SpecError
from edgedeploy.evidence.bootstrap import LEVEL, TIME_LEVEL, Resampler
from edgedeploy.evidence.comparable import require_comparable
from edgedeploy.evidence.conditions import LEAST_SAMPLES, board_cause
from edgedeploy.evidence.confirm import confirm
from edgedeploy.evidence.html import table_html
from edgedeploy.evidence.interleaved import baseline_beside
from edgedeploy.evidence.pareto import Objective
from edgedeploy.records.measurement import Measurement

ONE, OTHER, THIRD = (made_up.variant(width=width) for width in (1.0, 0.5, 0.25))
RATIO = Objective("latency_ratio", "minimize")
NOW = "2026-01-02T00:00:00+00:00"


def two(**changes: object) -> list[Measurement]:
    return [made_up.measurement(ONE), made_up.measurement(OTHER, created_utc=NOW, **changes)]


def elsewhere(**changes: object) -> list[Measurement]:
    return two(board=made_up.board(name="b", identity="1" * 16, **changes))


def test_measurements_of_one_board_and_study_compare() -> None:
    require_comparable(two(), None)
    require_comparable([], None)
    require_comparable(two(), ["latency_p50_ns"])


def test_two_measurements_of_one_variant_are_refused() -> None:
    with pytest.raises(ValueError, match="two valid measurements"):
        require_comparable([made_up.measurement(ONE), made_up.measurement(ONE, seed=5)], None)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: two(provenance="measured"), "2 provenances: emulated, measured"),
        (lambda: two(split="confirmation"), "2 splits: confirmation, selection"),
        (lambda: two(board=made_up.board(name="b")), "2 boards: b, made-up board"),
        (lambda: two(board=made_up.board(identity="1" * 16)), "2 machines: identity '1"),
        (lambda: two(board=made_up.board(cpu="another")), "2 processors: cpu 'another'"),
    ],
)
def test_what_does_not_compare_on_one_board_is_named(make: Callable[[], list[Measurement]], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        require_comparable(make(), None)
    with pytest.raises(SpecError, match="the first" if "machine" in told or "processor" in told else told):
        require_comparable(make(), None)


def test_boards_of_one_kind_compare_in_ratios_alone() -> None:
    require_comparable(elsewhere(), ["latency_ratio", "dice_mean"])
    with pytest.raises(SpecError, match="latency_p50_ns of 2 boards do not compare"):
        require_comparable(elsewhere(), ["dice_mean", "latency_p50_ns"])
    with pytest.raises(SpecError, match="2 kinds of board: cores 4, not 2, the first"):
        require_comparable(elsewhere(cores=4), ["latency_ratio"])
    require_comparable(two(board=made_up.board(cores=4)), ["latency_ratio"])


def test_every_measurement_is_of_the_same_cases() -> None:
    """The one that was measured first says which; those that keep no case have none to compare."""
    usual = {"a": {"dice_mean": 0.9}, "b": {"dice_mean": 0.8}}
    first = made_up.measurement(ONE, per_case=usual)
    same = made_up.measurement(THIRD, per_case=usual, created_utc="2026-01-03")
    require_comparable([same, first, made_up.measurement(OTHER, per_case={}, created_utc=NOW)], None)
    more = {f"new-{index}": {"dice_mean": 0.9} for index in range(5)}
    other = made_up.measurement(OTHER, per_case=more, created_utc=NOW)
    for items in ([first, other, same], [same, other, first], [first, same, other]):
        with pytest.raises(SpecError) as caught:
            require_comparable(items, None)
        told = str(caught.value)
        assert f"{OTHER.label} was measured on other selection cases than {ONE.label}" in told
        assert "5 came, 2 went (+new-0, +new-1, +new-2, -a, -b)" in told


@pytest.mark.parametrize("count", [LEAST_SAMPLES - 1, LEAST_SAMPLES])
def test_conditions_are_judged_by_the_medians_of_the_outer_quarters(count: int) -> None:
    """Too few samples are no judgement."""
    values = [2000.0] * (count - count // 4) + [1000.0] * (count // 4)
    found = board_cause({"during": {"cpu_mhz": values}}, max_heating_c=5.0, max_clock_drift=0.1)
    assert (found is not None) == (count == LEAST_SAMPLES)
    assert found is None or "from 2000 to 1000 MHz" in found


def test_a_quarter_is_a_quarter() -> None:
    values = [50.0] * 2 + [60.0] * 10 + [90.0] * 4
    found = board_cause({"during": {"hottest_c": values}}, max_heating_c=5.0, max_clock_drift=0.1)
    assert found is not None and "from 55 to 90 C" in found
    for limit_c, told in ((35.0, None), (34.9, "34.9 C more is allowed")):
        found = board_cause({"during": {"hottest_c": values}}, max_heating_c=limit_c, max_clock_drift=0.1)
        assert (found is None) == (told is None) and (told or "") in (found or "")


@pytest.mark.parametrize("first_mhz", [0.0, 1.0])
def test_a_clock_that_stands_still_at_first_is_not_judged(first_mhz: float) -> None:
    values = [first_mhz] * 12 + [2.0] * 4
    found = board_cause({"during": {"cpu_mhz": values}}, max_heating_c=5.0, max_clock_drift=0.1)
    assert (found is None) == (first_mhz == 0.0)


def test_a_clock_may_drift_by_the_limit_in_either_direction() -> None:
    for last_mhz, fine in ((1100.0, True), (900.0, True), (1101.0, False), (899.0, False)):
        values = [1000.0] * 12 + [last_mhz] * 4
        found = board_cause({"during": {"cpu_mhz": values}}, max_heating_c=5.0, max_clock_drift=0.1)
        assert (found is None) == fine, last_mhz


def test_the_baseline_beside_a_run_is_that_of_the_run() -> None:
    item = made_up.measurement(OTHER, latency_ms=2.0, baseline_ms=7.0)
    found = baseline_beside(item)
    assert item.baseline is not None
    median_ns = np.median([ns for block in item.baseline.blocks_ns for ns in block])
    assert found["latency_p50_ns"] == pytest.approx(float(median_ns), rel=1e-3)
    assert item.metrics["latency_p50_ns"] < median_ns / 3
    assert "latency_ratio" not in found and "size_bytes" not in found
    assert baseline_beside(made_up.measurement(OTHER, baseline_ms=None)) == {}
    assert baseline_beside(made_up.measurement()) == {}, "it is that baseline itself"


def test_times_are_bounded_at_their_own_level() -> None:
    """Two processes of one artifact would beat each other at the level of accuracies."""
    ours, theirs = made_up.measurement(ONE, noise=0.2), made_up.measurement(OTHER, noise=0.2, seed=2)
    found = Resampler(1, 400).compare(ours, theirs, RATIO)
    drawn = [Resampler(1, 400).draws_of(side, "latency_ratio") for side in (ours, theirs)]
    assert drawn[0] is not None and drawn[1] is not None and TIME_LEVEL > LEVEL
    wanted = np.quantile(drawn[1] - drawn[0], 1 - TIME_LEVEL)
    assert found.lower == pytest.approx(float(wanted), rel=1e-6)


def test_a_confirmation_compares_each_variant_with_the_baseline_of_its_split() -> None:
    front = made_up_report.front()
    assert front.pick is not None and front.reference is not None
    digests = {row.digest: row.variant for row in front.rows}
    others = [variant for digest, variant in digests.items() if digest not in (front.pick.digest, front.reference)][:2]
    asked = [*others, digests[front.pick.digest], digests[front.reference]]
    items = [made_up.measurement(v, dice=0.85, split="confirmation", seed=n) for n, v in enumerate(asked)]
    dropped = made_up.measurement(made_up.variant(width=0.11), split="confirmation", cause="hot")
    found = confirm(front, [*items, dropped])
    rest = sorted(variant.digest for variant in others)
    assert [item.variant.digest for item in found] == [front.reference, front.pick.digest, *rest]
    assert found[0].accuracy is None and found[0].within_margin is None
    for item in found[1:]:
        assert item.accuracy is not None and item.accuracy.metric == "dice_mean"
        assert item.within_margin == item.accuracy.shows_at_least(-front.pick.margin)
    assert set(found[0].estimates) == {"dice_mean", "hd95_px"}
    alone = confirm(front, items[:2])
    assert [item.accuracy for item in alone] == [None, None]
    lacking = [made_up.measurement(v, split="confirmation", without=("dice_mean",)) for v in asked]
    assert all(item.accuracy is None for item in confirm(front, [*items[:3], lacking[3]]))
    assert [item.accuracy is None for item in confirm(front, [lacking[2], items[3]])] == [True, True]


def test_a_table_for_notebooks_holds_texts() -> None:
    assert table_html(["a<b", "c"], [["1\n2", "<i>"], ["3", "4"]], "x & y") == (
        "<strong>x &amp; y</strong><table><thead><tr><th>a&lt;b</th><th>c</th></tr></thead>"
        "<tbody><tr><td>1<br>2</td><td>&lt;i&gt;</td></tr><tr><td>3</td><td>4</td></tr></tbody></table>"
    )
    assert table_html([], [["1"]]) == "<table><tbody><tr><td>1</td></tr></tbody></table>"


def test_a_front_says_its_numbers_to_nine_digits() -> None:
    """No platform's last bit shows, at any depth."""
    data = made_up_report.front().as_json()
    numbers: list[float] = []

    def collect(value: object) -> None:
        if isinstance(value, float):
            numbers.append(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(inner)

    collect(data)
    assert len(numbers) > 100
    assert [number for number in numbers if number != float(f"{number:.9g}")] == []


def test_rows_of_a_front_are_in_the_order_of_what_became_of_them() -> None:
    order = [row.status for row in made_up_report.front().rows]
    ranks = ["front", "dominated", "infeasible", "incomplete"]
    assert order == sorted(order, key=ranks.index)
    assert {"front", "dominated"} <= set(order)
