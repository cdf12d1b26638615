"""A machine that is too busy for numbers ends the study early, and the message names the key that says so."""

from __future__ import annotations

import dataclasses

import made_up
import pytest

from edgedeploy.errors import Unstable
from edgedeploy.evidence.statistics import stability
from edgedeploy.search.loop import Failed, Scored
from edgedeploy.study.steadiness import Steadiness

BUSY = Failed("Unstable", "other processes used 1.67 of a core", "measure")
GOOD = Scored((1.0,), {})


def test_the_limit_names_its_key_and_what_to_do() -> None:
    said = stability(made_up.side(6.0), {"background_cpu_share": 1.67}, made_up.LIMITS)
    assert said == (
        "other processes used 1.67 of a core during the run; at most 0.5 is allowed (max_background_cores in [measure]: "
        "end that work, or allow more where it always runs)"
    )
    drifting = stability(made_up.side(6.0, drift=3.0), {}, made_up.LIMITS)
    assert drifting is not None and "max_drift in [measure]" in drifting
    scattered = stability(
        made_up.side(6.0, noise=1.5), {}, dataclasses.replace(made_up.LIMITS, max_drift=50.0, max_spread=0.1)
    )
    assert scattered is not None and "max_spread in [measure]" in scattered
    hot = {"during": {"hottest_c": [40.0] * 8 + [70.0] * 8}}
    heated = stability(made_up.side(6.0), hot, made_up.LIMITS)
    assert heated is not None and "max_heating_c in [measure]" in heated
    clock = {"during": {"cpu_mhz": [2000.0] * 8 + [1000.0] * 8}}
    slowed = stability(made_up.side(6.0), clock, made_up.LIMITS)
    assert slowed is not None and "max_clock_drift in [measure]" in slowed


def test_nothing_valid_twice_ends_the_study() -> None:
    steadiness = Steadiness(measured=False)
    steadiness.note(BUSY, 0.1)
    with pytest.raises(Unstable, match="2 variants in a row") as ended:
        steadiness.note(BUSY, 0.2)
    assert "1.67 of a core" in ended.value.found and "--resume" in ended.value.remedy
    assert ended.value.exit_code == 4


def test_a_baseline_that_took_a_quarter_of_the_time_ends_it_at_once() -> None:
    with pytest.raises(Unstable, match="one variant"):
        Steadiness(measured=False).note(BUSY, 0.3)


def test_a_machine_that_was_quiet_before_gets_more_patience() -> None:
    steadiness = Steadiness(measured=False)
    steadiness.note(GOOD, 0.1)
    for _ in range(3):
        steadiness.note(BUSY, 0.9)
    steadiness.note(GOOD, 0.9)
    for _ in range(3):
        steadiness.note(BUSY, 0.9)
    steadiness.note(Failed("Unsupported", "no kernel", "build"), 0.9)
    for _ in range(3):
        steadiness.note(BUSY, 0.9)
    with pytest.raises(Unstable, match="4 variants in a row"):
        steadiness.note(BUSY, 0.9)
    resumed = Steadiness(measured=True)
    resumed.note(BUSY, 0.9)
    assert resumed.in_a_row == 1
