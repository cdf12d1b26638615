"""A run whose board changed under it is invalid, with its cause; a board that is hot gets time to cool."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_up
import pytest
from simulated_clock import SimulatedClock

from edgedeploy.evidence.conditions import COOL_MARGIN_C, cooled_c
from edgedeploy.evidence.statistics import stability
from edgedeploy.runtime.sensors import conditions

STEADY = {"before": {"power_mode": None}, "after": {"power_mode": None}}


def environment(**changes: Any) -> dict[str, Any]:
    return {**STEADY, **changes}


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        (environment(), None),
        (environment(during={"hottest_c": [50.0] * 6 + [58.0] * 6}), None),
        (environment(during={"hottest_c": [50.0] * 6 + [70.0] * 6}), "from 50 to 70 C"),
        (environment(during={"hottest_c": [50.0, 70.0]}), None),
        (environment(during={"cpu_mhz": [2400.0] * 8 + [2300.0] * 8}), None),
        (environment(during={"cpu_mhz": [2400.0] * 8 + [1800.0] * 8}), "from 2400 to 1800 MHz"),
        (environment(during={"cpu_mhz": [1800.0] * 8 + [2400.0] * 8}), "from 1800 to 2400 MHz"),
        (environment(during={"throttling": ["thermal-cpufreq-0"]}), "taken away during the run by thermal-cpufreq-0"),
        (environment(during={"throttling": []}), None),
        (environment(before={"power_mode": "MAXN (0)"}, after={"power_mode": "MODE_15W (1)"}), "power mode changed"),
        (
            {
                "power_mode_asked": {"governor": "performance"},
                "before": {"governor": None},
                "after": {"governor": None},
            },
            None,
        ),
        (
            {
                "power_mode_asked": {"governor": "performance"},
                "before": {"governor": "performance"},
                "after": {"governor": "performance"},
            },
            None,
        ),
        (
            {
                "power_mode_asked": {"power_mode": "MAXN (0)"},
                "before": {"power_mode": "MODE_15W (1)"},
                "after": {"power_mode": "MODE_15W (1)"},
            },
            "MAXN .0. was asked for, and at the start of the run it was MODE_15W",
        ),
        (
            {
                "before": {"throttle_events": {"oc3_event_cnt": 37}},
                "after": {"throttle_events": {"oc3_event_cnt": 40}},
            },
            "throttled 3 times",
        ),
        (
            {
                "before": {"throttle_events": {"under-voltage since boot": 0}},
                "after": {"throttle_events": {"under-voltage since boot": 1}},
            },
            "throttled 1 times",
        ),
    ],
)
def test_causes(found: dict[str, Any], cause: str | None) -> None:
    said = stability(made_up.side(6.0), found, made_up.LIMITS)
    if cause is None:
        assert said is None
    else:
        assert said is not None
        assert re.search(cause, said), said


def test_limits_come_from_the_study() -> None:
    found = environment(during={"hottest_c": [50.0] * 6 + [58.0] * 6, "cpu_mhz": [2400.0] * 8 + [2300.0] * 8})
    assert stability(made_up.side(6.0), found, made_up.LIMITS) is None
    assert "58 C" in (stability(made_up.side(6.0), found, replace(made_up.LIMITS, max_heating_c=5.0)) or "")
    assert "2300 MHz" in (stability(made_up.side(6.0), found, replace(made_up.LIMITS, max_clock_drift=0.02)) or "")


def test_a_repeat_waits_for_the_temperature_of_the_first_run() -> None:
    assert cooled_c({"before": {"temperatures_c": {"cpu": 41.0, "gpu": 44.0}}}) == 44.0 + COOL_MARGIN_C
    assert cooled_c({"before": {"temperatures_c": None}}) is None
    assert cooled_c({}) is None


def made_up_zone(root: Path, celsius: float) -> Path:
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text(f"{round(celsius * 1000)}\n")
    return root


class TestCoolDown:
    def test_waits_until_it_is_cool(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = made_up_zone(tmp_path, 80.0)
        falling = iter([72.0, 66.0, 58.0])
        monkeypatch.setattr(conditions.time, "sleep", lambda seconds: made_up_zone(root, next(falling)))
        found = conditions.cool_down(60.0, 100.0, root)
        assert (found["from_c"], found["to_c"]) == (80.0, 58.0)

    def test_gives_up_in_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = SimulatedClock()
        sleep = lambda seconds: clock.sleep_until_ns(clock.now_ns() + round(seconds * 1e9))  # noqa: E731
        monkeypatch.setattr(conditions, "time", SimpleNamespace(monotonic_ns=clock.now_ns, sleep=sleep))
        found = conditions.cool_down(60.0, 2.5, made_up_zone(tmp_path, 80.0))
        assert found["to_c"] == 80.0
        assert 2.5e9 <= found["waited_ns"] < 4e9

    def test_a_board_without_temperatures_does_not_wait(self, tmp_path: Path) -> None:
        assert "no readable zone" in conditions.cool_down(60.0, 100.0, tmp_path)["missing"]


class TestRecorder:
    def test_records_what_a_made_up_board_does(self, tmp_path: Path) -> None:
        root = made_up_zone(tmp_path, 45.0)
        device = root / "sys/class/thermal/cooling_device0"
        device.mkdir(parents=True)
        (device / "type").write_text("cpufreq-cpu0\n")
        (device / "cur_state").write_text("0\n")
        recorder = conditions.ConditionRecorder([], root, period_s=0.0)
        recorder.look()
        (device / "cur_state").write_text("3\n")
        made_up_zone(root, 62.0)
        recorder.look()
        (device / "cur_state").write_text("0\n")
        recorder.look()
        found = recorder.result()
        assert found["hottest_c"] == [45.0, 62.0, 62.0]
        assert found["throttling"] == ["cpufreq-cpu0"]
        assert len(found["at_ns"]) == 3
        assert set(found["missing"]) == {"cpu_mhz"}

    def test_looks_at_most_once_a_period(self, tmp_path: Path) -> None:
        recorder = conditions.ConditionRecorder([], made_up_zone(tmp_path, 45.0), period_s=60.0)
        for _ in range(5):
            recorder.look()
        assert recorder.result()["hottest_c"] == [45.0]

    def test_this_machine(self) -> None:
        recorder = conditions.ConditionRecorder([0], period_s=0.0)
        recorder.look()
        recorder.look()
        found = recorder.result()
        assert len(found["at_ns"]) == 2
        assert found["looking_ns"] > 0
        for name in {"cpu_mhz", "hottest_c"} - set(found["missing"]):
            assert len(found[name]) == 2
