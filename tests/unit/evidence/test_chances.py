"""P(on front): what the bootstrap's draws say of who is on the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import made_up
import numpy as np
import pytest

from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.chances import chances_on_front
from edgedeploy.evidence.front import build_front
from edgedeploy.evidence.rows import front_rows
from edgedeploy.records.draws import SplitDraws
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement

DICE = Objective("dice_mean", "maximize")
RATIO = Objective("latency_ratio", "minimize")
SIZE = Objective("size_bytes", "minimize")
RESAMPLES = 400


def item(number: int, dice: float = 0.85, latency_ms: float = 3.0, **more: object) -> Measurement:
    of = made_up.variant(number=number)
    return made_up.measurement(of, dice=dice, latency_ms=latency_ms, seed=number, **more)  # type: ignore[arg-type]


def chances(items: Sequence[Measurement], *goals: Objective) -> list[float | None]:
    found = chances_on_front(items, {one.digest for one in items}, goals, Resampler(5, RESAMPLES))
    return [found.get(one.digest) for one in items]


@pytest.mark.parametrize("goals", [(DICE,), (DICE, RATIO), (DICE, RATIO, SIZE)])
def test_shares_are_those_of_the_definition(goals: tuple[Objective, ...]) -> None:
    rng = np.random.default_rng(1)
    near = [(0.85 + 0.002 * rng.normal(), 3 + 0.03 * rng.normal(), 1_000 + int(rng.integers(3))) for _ in range(12)]
    items = [item(n, dice, ms, size_bytes=size) for n, (dice, ms, size) in enumerate([*near, (0.6, 5.0, 2_000)])]
    resampler = Resampler(5, RESAMPLES)
    gains = np.array(
        [
            [
                goal.sign
                * (
                    np.full(RESAMPLES, one.metrics[goal.metric])
                    if goal is SIZE
                    else np.asarray(resampler.draws_of(one, goal.metric))
                )
                for goal in goals
            ]
            for one in items
        ]
    )
    expected = []
    for own in gains:
        dominates = (gains >= own).all(axis=1) & (gains > own).any(axis=1)
        expected.append(1 - dominates.any(axis=0).mean())
    found = chances(items, *goals)
    assert found == pytest.approx(expected)
    assert found[-1] == 0.0 and 0 < expected[0] < 1


def test_one_that_nothing_comes_near_is_sure_and_equals_are_both_on_the_front() -> None:
    assert chances([item(1, 0.85, 2.0), item(2, 0.70, 4.0)], DICE, RATIO) == [1.0, 0.0]
    same = item(1)
    twin = replace(same, variant=made_up.variant(number=2))
    assert chances([same, twin], DICE, SIZE) == [1.0, 1.0]


def test_cases_are_drawn_in_pairs_also_where_the_metric_is_undefined_for_some() -> None:
    """Always .001 better on every case: sure in pairs, a coin's toss where each had cases of its own."""
    worse = made_up.cases(0.85, seed=1)
    better = {case: {"dice_mean": values["dice_mean"] + 0.001} for case, values in worse.items()}
    better["case-07"] = {}
    other = [item(1, per_case=worse), item(2, per_case=better)]
    found = chances(other, DICE)
    worse_there = worse.pop("case-07")["dice_mean"]
    mean = np.mean([values["dice_mean"] for values in worse.values()])
    assert abs(worse_there - mean) < 0.06, "the case that one lacks must not decide by itself"
    assert found[1] is not None and found[1] > 0.8 and found[0] == pytest.approx(1 - found[1])


def test_groups_are_drawn_whole() -> None:
    items = [
        replace(item(n, dice), groups={f"case-{i:02d}": i // 8 for i in range(40)})
        for n, dice in ((1, 0.85), (2, 0.849))
    ]
    del items[1].cases["case-03"]  # type: ignore[attr-defined]
    found = chances(items, DICE)
    assert found[0] is not None and found[1] is not None
    assert found[0] + found[1] == pytest.approx(1) and found[0] > found[1]


def test_draws_of_a_split_stay_in_pairs_where_some_are_undefined() -> None:
    rng = np.random.default_rng(2)
    drawn = rng.normal(0.9, 0.05, 100)
    split = Objective("auroc", "maximize")

    def scored(number: int, more: float, undefined: int) -> Measurement:
        values = drawn + more
        values[:undefined] = np.nan
        one = item(number)
        draws = {"auroc": SplitDraws.of("the same cases", values)}
        return replace(one, draws=draws, metrics={**one.metrics, "auroc": 0.9 + more})

    assert chances([scored(1, 0.0, 0), scored(2, 0.001, 5)], split) == [pytest.approx(0.05), 1.0]


def test_too_few_cases_say_nothing_and_still_stand_in_the_way() -> None:
    few = made_up.cases(0.95, count=3)
    assert chances([item(1, per_case=few), item(2, 0.80)], DICE) == [None, 0.0]


def test_a_front_has_them_for_members_and_for_what_is_indistinguishable() -> None:
    items = [item(1, 0.850, 3.0), item(2, 0.8495, 3.01), item(3, 0.70, 5.0), item(4, 0.90, 9.0, size_bytes=9_000_000)]
    front = build_front(
        items,
        (DICE, RATIO),
        margin=0.01,
        metrics=made_up.TASK_METRICS,
        min_effect={"dice_mean": 0.005, "latency_ratio": 0.02},
    )
    by_digest = {row.digest: row for row in front.rows}
    rows = [by_digest[one.digest] for one in items]
    assert [row.confidence for row in rows] == [None, "indistinguishable", "confirmed", None]
    assert [row.p_on_front is None for row in rows] == [False, False, True, False]
    assert rows[3].p_on_front == 1.0 and 0 < (rows[1].p_on_front or 0) < 1
    told = {row["digest"]: row["p_on_front"] for row in front.as_json()["rows"]}
    assert told[items[3].digest] == 1.0 and told[items[2].digest] is None
    assert {row["digest"]: row["p_on_front"] for row in front_rows(front)}[items[3].digest] == 1.0
