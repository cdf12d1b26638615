"""From scenarios' raw series to numbers: worked out by hand, or on series whose answer is known."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any, ClassVar

import made_up
import numpy as np
import pytest
from simulated_clock import SimulatedClock, SimulatedSession

from edgedeploy.errors import MeasurementError
from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.front import build_front
from edgedeploy.evidence.metrics import scenario_metrics
from edgedeploy.evidence.samples import trend
from edgedeploy.evidence.serving import predicted_latency_ns, predicted_users
from edgedeploy.records.goals import Objective
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import SCENARIO_METRICS
from edgedeploy.runtime.scenarios.base import Bench, make_scenario
from edgedeploy.runtime.scenarios.queueing import GAP_UNIT
from edgedeploy.runtime.scenarios.schedule import Waiting, replay


def metrics(
    name: str, raw: Mapping[str, Any] | None = None, blocks: Any = ()
) -> tuple[dict[str, float], dict[str, str]]:
    side = dataclasses.replace(made_up.side(1.0), blocks_ns=tuple(map(tuple, blocks)))
    found, missing = scenario_metrics([name], side, {} if raw is None else {name: raw})
    assert set(found) | set(missing) == set(SCENARIO_METRICS[name])
    assert not set(found) & set(missing)
    return found, missing


def replayed(arrivals: list[int], service: list[int], deadline: int, policy: str = "latest") -> dict[str, Any]:
    clock = SimulatedClock()
    done = replay(arrivals, deadline, Waiting(policy, 1), clock.work(*service), clock)
    return {**done.as_json(), "stages_ns": {"inference": [end - start for _, start, end in done.processed]}}


class TestSingleStream:
    def test_bounds_are_loadgens_and_lie_above_the_percentiles(self) -> None:
        found, missing = metrics("single_stream", blocks=[list(range(1, 709))])
        assert found["latency_p90_bound_ns"] == 708 - 51  # as a published LoadGen log of 708 queries
        assert found["latency_p99_bound_ns"] == 708
        assert found["latency_max_ns"] == 708
        assert missing["latency_p999_ns"].startswith("708 queries, 6636 needed")

    def test_6636_queries_carry_the_far_percentile(self) -> None:
        blocks = [list(range(start, start + 8)) for start in range(1, 6641, 8)]
        found, missing = metrics("single_stream", blocks=blocks)
        assert missing == {}
        assert found["latency_p999_ns"] == 6634  # ceil(0.999 * 6640)
        assert found["latency_p999_bound_ns"] == 6640

    def test_impossible_times_are_refused(self) -> None:
        with pytest.raises(MeasurementError):
            metrics("single_stream", blocks=[[5, 0, 5]])


class TestRealtime:
    def test_misses_count_late_dropped_and_pending_frames(self) -> None:
        raw = replayed([0, 10, 20, 30, 40], [25], deadline=26)
        # Processed 0 (age 25), 2 (age 30, late), 4 (age 35, late); dropped 1 and 3.
        found, _ = metrics("realtime", raw)
        assert found["realtime_deadline_miss_percent"] == pytest.approx(80.0)
        assert found["realtime_drop_percent"] == pytest.approx(40.0)
        assert found["realtime_result_age_p50_ns"] == 30
        assert found["realtime_result_age_max_ns"] == 35
        assert found["realtime_jitter_ns"] == 5
        assert found["realtime_inference_ns"] == 25
        # Frame 0 shown from 25 to 50 (age 25 to 50), frame 2 from 50 to 75 (age 30 to 55).
        assert found["realtime_shown_age_mean_ns"] == pytest.approx((37.5 + 42.5) / 2)

    def test_a_percentile_needs_its_results(self) -> None:
        _, missing = metrics("realtime", replayed(list(range(0, 6610, 10)), [4], deadline=10))
        assert missing["realtime_result_age_p99_ns"].startswith("661 results, 662 needed")
        found, missing = metrics("realtime", replayed(list(range(0, 6620, 10)), [4], deadline=10))
        assert found["realtime_result_age_p99_ns"] == 4
        assert found["realtime_deadline_miss_percent"] == 0
        assert set(missing) == {"realtime_decode_ns", "realtime_resize_ns", "realtime_overlay_ns"}

    def test_frames_that_are_not_accounted_for_void_the_run(self) -> None:
        raw = replayed([0, 10], [4], deadline=10)
        with pytest.raises(MeasurementError, match="accounted for"):
            metrics("realtime", {**raw, "processed": raw["processed"][:1]})

    def test_results_before_their_frames_are_refused(self) -> None:
        raw = replayed([0, 10], [4], deadline=10)
        with pytest.raises(MeasurementError, match="age of a result"):
            metrics("realtime", {**raw, "processed": [[0, 0, 4], [1, 5, 9]]})


class TestSustained:
    def raw(self, medians: list[float], temperatures: list[float | None] | None = None) -> dict[str, Any]:
        windows = [
            {"start_ns": 10_000_000_000 * i, "queries": 9, "p50_ns": int(m), "p90_ns": int(m), "max_ns": int(m)}
            for i, m in enumerate(medians)
        ]
        return {
            "windows": windows,
            "conditions": [{"temperatures_c": t and {"cpu": t}} for t in temperatures or [None]],
        }

    def test_steady_growth_is_the_slope(self) -> None:
        # 1 % of the mean each window of 10 s is 6 % a minute.
        found, missing = metrics("sustained", self.raw([1e6 * (1 + 0.01 * (i - 30)) for i in range(61)], [40.0, 61.5]))
        assert found["sustained_slope_percent_per_min"] == pytest.approx(6.0)
        assert found["sustained_latency_p50_ns"] == 1_000_000
        assert found["sustained_slowdown_ratio"] == pytest.approx((1 + 0.245) / (1 - 0.245), abs=0.01)
        assert found["sustained_temperature_rise_c"] == 21.5
        assert missing == {}

    def test_without_sensors_heat_is_missing(self) -> None:
        found, missing = metrics("sustained", self.raw([1e6] * 10))
        assert missing == {"sustained_temperature_rise_c": "no temperature sensor"}
        assert found["sustained_slope_percent_per_min"] == pytest.approx(0, abs=1e-9)

    def test_uncertainty_of_a_slope_holds_for_noise_and_widens_for_resembling_neighbours(self) -> None:
        rng = np.random.default_rng(0)
        at = np.arange(60.0)
        shares = []
        for correlation in (0.0, 0.6):
            outside = 0
            for _ in range(400):
                noise = rng.normal(size=60)
                for i in range(1, 60):
                    noise[i] += correlation * noise[i - 1]
                slope = trend(at, 100 + noise)
                outside += abs(slope.value) > 2.0 * slope.error
            shares.append(outside / 400)
        # Two standard errors leave out about 5 % of the runs that have no trend at all. Seeded: the same each time.
        assert 0.02 < shares[0] < 0.09
        assert shares[1] < 0.20

    def test_five_windows_are_needed(self) -> None:
        _, missing = metrics("sustained", self.raw([1e6] * 4))
        assert missing["sustained_slope_percent_per_min"] == "4 windows, 5 needed"


def test_offline_is_all_samples_over_all_time() -> None:
    found, _ = metrics("offline", {"samples": [10, 30], "elapsed_ns": [10**9, 10**9]})
    assert found["offline_throughput_per_s"] == pytest.approx(20.0)


def test_multi_stream_that_never_failed_has_no_largest_number() -> None:
    assert metrics("multi_stream", {"streams": 3, "most": 64, "levels": []})[0] == {"multi_stream_streams": 3.0}
    assert metrics("multi_stream", {"streams": 0, "most": 64, "levels": []})[0] == {"multi_stream_streams": 0.0}
    _, missing = metrics("multi_stream", {"streams": 64, "most": 64, "levels": []})
    assert "all of 64 streams hold" in missing["multi_stream_streams"]


def test_areas_are_the_medians_over_runs() -> None:
    def run(scale: int) -> dict[str, list[int]]:
        return {
            "at_ns": [100_000_000, 200_000_000, 250_000_000],
            "resident_bytes": [scale * 10**6, scale * 3 * 10**6, scale * 2 * 10**6],
            "cpu_ns": [0, 10**8, scale * 2 * 10**8],
        }

    found, _ = metrics("resources", {"runs": [run(1), run(9), run(2)]})
    assert found["resources_memory_area_byte_s"] == pytest.approx(2 * (0.1e6 + 0.3e6 + 0.05 * 2e6))
    assert found["resources_cpu_area_core_s"] == pytest.approx(0.4)
    assert found["resources_duration_ns"] == 250_000_000


def test_a_stuck_case_is_a_failure_that_counts_with_the_limit() -> None:
    def case(seconds: int, failed: str = "") -> dict[str, Any]:
        return {
            "at_ns": [seconds * 10**9 // 2, seconds * 10**9],
            "resident_bytes": [10**6, 2 * 10**6],
            "cpu_ns": [0, seconds * 10**9],
            "failed": failed,
        }

    found, _ = metrics("flare", {"limit_ns": 60 * 10**9, "runs": [case(2), case(4), case(6), case(8, "time_limit")]})
    assert found["flare_failed_percent"] == pytest.approx(25)
    assert found["flare_duration_ns"] == pytest.approx((2 + 4 + 6 + 60) / 4 * 1e9)
    assert found["flare_memory_area_byte_s"] == pytest.approx(1.5e6 * 5)
    assert found["flare_cpu_area_core_s"] == pytest.approx(5)


class TestServer:
    SETTINGS: ClassVar[dict[str, Any]] = {
        **{"every_ns": 10_000_000, "deadline_ns": 40_000, "percent": 90.0, "users": 0, "most": 100_000, "samples": 8},
        **{"time_limit_ns": 10**15, "max_batch": 1, "max_wait_ns": 0, "capacity": 64, "instances": 1},
    }

    def raw(self, *durations_ns: int, **changes: Any) -> dict[str, Any]:
        """Made up: a simulated session on a simulated clock, which is asked once in a while."""
        clock = SimulatedClock()
        cycle = [{"x": np.ones((1, 2), np.float32)}]
        bench = Bench(SimulatedSession(clock, *durations_ns), cycle, clock, dict)
        draw = random.Random(0)
        gaps = [round(draw.expovariate(1.0) * GAP_UNIT) for _ in range(700)]
        return make_scenario("server", {"gaps": gaps, **self.SETTINGS, **changes}).run(bench)

    def test_numbers_are_of_the_load_that_is_stated(self) -> None:
        raw = self.raw(10_000)
        found, missing = metrics("server", raw)
        assert missing == {}
        assert found["users_within_deadline"] == raw["users"]
        late = sum(latency > 40_000 for latency in raw["at"]["latencies_ns"])
        assert found["server_missed_percent"] == pytest.approx(100 * late / 700)
        assert found["server_shed_percent"] == 0
        assert found["server_latency_p99_ns"] == sorted(raw["at"]["latencies_ns"])[692]

    def test_requests_that_were_turned_away_are_missed(self) -> None:
        raw = self.raw(10_000, users=5000)
        found, _ = metrics("server", raw)
        shed = len(raw["at"]["shed"])
        late = sum(latency > 40_000 for latency in raw["at"]["latencies_ns"])
        assert found["server_shed_percent"] == pytest.approx(100 * shed / 700)
        assert found["server_missed_percent"] == pytest.approx(100 * (shed + late) / 700)

    def test_a_search_without_an_end_or_without_a_limit_is_no_number(self) -> None:
        _, missing = metrics("server", self.raw(10_000, time_limit_ns=1))
        assert len(missing) == 4
        assert all("did not end in its time" in reason for reason in missing.values())
        _, missing = metrics("server", self.raw(50_000))
        assert missing["server_latency_p99_ns"] == "no load held"
        _, missing = metrics("server", self.raw(10_000, most=5))
        assert "raise `most`" in missing["users_within_deadline"]

    def test_the_prediction_is_said_beside_what_was_measured(self) -> None:
        raw = self.raw(10_000)
        predicted = predicted_users(raw)
        assert predicted.users == pytest.approx(raw["users"], rel=0.04)
        assert predicted.text(raw["users"]).endswith("(predicted from service times)")
        latency_ns = predicted_latency_ns(raw, raw["users"], 99)
        assert latency_ns == pytest.approx(metrics("server", raw)[0]["server_latency_p99_ns"], rel=0.01)

    def test_no_metric_is_a_prediction(self) -> None:
        """What stands on a front are the table's metrics, and each is read from what the board measured."""
        raw = self.raw(10_000)
        doubled = {**raw, "services": [{**cell, "ns": [2 * time for time in cell["ns"]]} for cell in raw["services"]]}
        assert predicted_users(doubled).users < 0.8 * predicted_users(raw).users
        assert metrics("server", doubled) == metrics("server", raw)


def test_a_scenario_the_board_is_silent_about_is_a_failure() -> None:
    with pytest.raises(MeasurementError, match="the board sent nothing"):
        metrics("offline")


def measured(service_ns: list[int], width: float, elapsed_ns: int) -> Measurement:
    """Made up: a simulated replay and made-up offline chunks on a made-up board."""
    raw = {
        "realtime": replayed([10 * i for i in range(400)], service_ns, deadline=10),
        "offline": {"samples": [8] * 10, "elapsed_ns": [elapsed_ns + 1000 * i for i in range(10)]},
    }
    base = made_up.measurement(made_up.variant(width=width))
    more, why = scenario_metrics(["realtime", "offline"], base.candidate, raw)
    return dataclasses.replace(base, scenarios=raw, metrics={**base.metrics, **more}, missing={**base.missing, **why})


def test_scenario_metrics_have_intervals_and_decide_a_front() -> None:
    slow, fast = measured([9, 8, 12, 7, 14], 1.0, 10**7), measured([4, 5, 6], 0.5, 10**6)
    objectives = (
        Objective("realtime_deadline_miss_percent", "minimize"),
        Objective("offline_throughput_per_s", "maximize"),
    )
    front = build_front([slow, fast], objectives, baseline_digests=[slow.digest], margin=0.01)
    assert [row.digest for row in front.members] == [fast.digest]
    assert (front.rows[1].status, front.rows[1].confidence) == ("dominated", "confirmed")
    estimate = Resampler(0).estimate(slow, "realtime_deadline_miss_percent")
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < estimate.value < estimate.high
    assert Resampler(0).estimate(slow, "realtime_result_age_max_ns").low is None


def test_no_miss_in_400_frames_is_not_certainty() -> None:
    """Jeffreys' upper 97.5 % limit of 0 in 400 is 0.62 %."""
    estimate = Resampler(0).estimate(measured([4], 1.0, 10**6), "realtime_deadline_miss_percent")
    assert estimate.value == 0
    assert estimate.high == pytest.approx(0.62, abs=0.15)


def test_cases_that_took_no_tick_of_the_cpu_are_no_share_of_anything() -> None:
    """Seconds are no events: none in eight cases is none, and Jeffreys' limit of events would say up to 0.26 s."""
    case = {"at_ns": [10**6], "resident_bytes": [10**6], "cpu_ns": [0], "failed": ""}
    base = measured([4], 1.0, 10**6)
    raw = {"flare": {"limit_ns": 10**9, "runs": [case] * 8}}
    found, missing = scenario_metrics(["flare"], base.candidate, raw)
    assert not missing
    kept = dataclasses.replace(base, scenarios={**base.scenarios, **raw}, metrics={**base.metrics, **found})
    assert Resampler(0).estimate(kept, "flare_cpu_area_core_s").high == 0
    assert Resampler(0).estimate(kept, "flare_failed_percent").high > 10


def test_raw_series_survive_the_store() -> None:
    kept = Measurement.from_json(measured([4], 1.0, 10**6).as_json())
    assert kept.scenarios["realtime"]["arrivals_ns"][:2] == [0, 10]
    old = {key: value for key, value in kept.as_json().items() if key != "protocols"}
    assert Measurement.from_json(old).scenarios == {}
