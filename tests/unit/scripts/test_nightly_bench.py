"""The simulation of the nightly gate is the gate, and its table tells the truth about it."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from benchmarks.nightly_kit.asked import PARTS
from benchmarks.nightly_kit.bars import Alarms, false_alarms, found_after, nearest
from benchmarks.nightly_kit.noises import SESSIONS, drawn, made_up, read_record
from benchmarks.nightly_kit.recorded import nights_of
from benchmarks.nightly_kit.simulation import judge
from benchmarks.shared.rows import makers_of

from edgedeploy.evidence.nights import FIRST_SESSIONS, Limits, Past, judge_series, widened

TIGHT = Limits(hot_s=1.5, drift_h=1.5, drift_k=0.8, hot_floor=0.01, drift_floor=0.006, young_floor=0.02)
"""So tight that calm nights alarm too: each branch is taken many times."""


@pytest.mark.parametrize("limits", [TIGHT, widened(10), widened(1000)], ids=["tight", "of 10", "of 1000"])
def test_the_simulation_says_of_every_night_what_the_rule_says(limits: Limits) -> None:
    losses = made_up("t4 nights", 0.02, 60, 8, seed=3)
    losses[25:40, ::2] += 0.045
    losses[50:, 1::3] += 0.1
    found = judge(losses, limits)
    assert found.alarms.sum() > 3
    for series in range(losses.shape[1]):
        history: list[Past] = []
        for night, sessions in enumerate(losses[:, series].tolist()):
            said = judge_series(history, sessions[:FIRST_SESSIONS], limits)
            assert (said.status == "suspect") == found.suspects[night, series], (series, night)
            if said.status == "suspect":
                said = judge_series(history, sessions, limits)
            assert (said.status == "regression") == found.alarms[night, series], (series, night)
            assert said.loss is not None
            history.append(Past(said.loss, said.status == "regression"))


def test_a_lab_without_limits_would_alarm_all_the_time() -> None:
    nights = partial(made_up, "normal", 0.013)
    assert not false_alarms(nights, 100, 1, 0, TIGHT).holds
    assert false_alarms(nights, 100, 2, 0).holds


def test_drawn_nights_are_whole_nights_of_their_kind() -> None:
    record = read_record()
    kinds = list(record.nights)
    found = drawn(record, kinds, 20, 2 * len(kinds), seed=1)
    for place in range(found.shape[1]):
        rows = {tuple(row) for row in record.nights[kinds[place % len(kinds)]].tolist()}
        assert {tuple(row) for row in found[:, place].tolist()} <= rows


def test_the_record_is_of_many_sessions_with_a_spread() -> None:
    record = read_record()
    for kind in record.nights:
        values = record.sessions(kind)
        assert values.size >= 10 * SESSIONS
        assert np.isfinite(values).all()
        assert 1e-4 < values.std() < 0.2


def test_a_planted_slowdown_is_counted_from_its_first_night() -> None:
    calm = partial(made_up, "normal", 0.001)
    assert set(found_after(calm, math.log(1.2), 20, 0, widened(100)).tolist()) == {1.0}
    assert np.isinf(found_after(calm, 0.0, 20, 0, widened(100))).all()
    recorded = found_after(nights_of(read_record(), "latency"), math.log(1.5), 50, 0, widened(100))
    assert (recorded == 1).all()


def test_the_share_is_that_of_the_smallest_value_that_reaches_it() -> None:
    assert nearest(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10]), 0.9) == 9


def test_a_rate_above_its_bar_does_not_hold() -> None:
    assert not Alarms(1, 100, 1.01, 0.1, 0.0).holds


def test_every_row_has_a_name_of_its_own() -> None:
    found = makers_of("nightly_kit", PARTS)
    assert {"recorded_false_alarms_of_a_lab", "recorded_10_percent", "recorded_5_percent"} <= set(found)
