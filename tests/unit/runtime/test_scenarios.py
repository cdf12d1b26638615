"""The board's scenarios on a simulated session and clock: what they record, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from simulated_clock import SimulatedClock, SimulatedSession

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.scenarios.base import SCENARIOS, Bench, make_scenario
from edgedeploy.runtime.scenarios.multi_stream import MultiStream, largest
from edgedeploy.runtime.scenarios.stages import Pipeline, overlay, resize
from edgedeploy.spec.measuring import MeasureTable

MS = 1_000_000


def bench(*durations_ns: int, cases: int = 3) -> Bench:
    clock = SimulatedClock()
    cycle = [{"x": np.full((1, 1, 4, 4), case, np.float32)} for case in range(cases)]
    return Bench(SimulatedSession(clock, *durations_ns), cycle, clock, lambda: {"temperatures_c": {"cpu": 40.0}})


def run(name: str, on: Bench, **settings: Any) -> Mapping[str, Any]:
    return make_scenario(name, settings).run(on)


class TestOffline:
    def test_all_samples_in_chunks_of_nearly_one_size(self) -> None:
        on = bench(5)
        raw = run("offline", on, samples=10, chunks=4)
        assert raw == {"samples": [2, 3, 3, 2], "elapsed_ns": [10, 15, 15, 10]}

    def test_samples_go_round_the_cases(self) -> None:
        on = bench(5)
        run("offline", on, samples=4, chunks=1)
        fed = [float(feeds["x"].flat[0]) for feeds in on.session.fed]  # type: ignore[attr-defined]
        assert fed == [0.0, 0.0, 1.0, 2.0, 0.0]  # one untimed, then the four


class TestSustained:
    def test_windows_follow_one_another_and_count_their_queries(self) -> None:
        raw = run("sustained", bench(30, 10, 20, 30, 40), duration_ns=100, window_ns=50)
        assert raw["windows"] == [
            {"start_ns": 0, "queries": 3, "p50_ns": 20, "p90_ns": 30, "max_ns": 30},
            {"start_ns": 60, "queries": 2, "p50_ns": 40, "p90_ns": 40, "max_ns": 40},
        ]
        assert len(raw["conditions"]) == 3

    def test_a_query_longer_than_the_window_is_a_window(self) -> None:
        raw = run("sustained", bench(70), duration_ns=100, window_ns=50)
        assert [(window["start_ns"], window["queries"]) for window in raw["windows"]] == [(0, 1), (70, 1)]


class TestMultiStream:
    PLAN = MultiStream(interval_ns=100, queries=64, percent=90, most=64)

    def streams(self, each_ns: int, **changes: Any) -> Mapping[str, Any]:
        settings = {"interval_ns": 100, "queries": 64, "percent": 90.0, "most": 64, **changes}
        return run("multi_stream", bench(each_ns), **settings)

    @pytest.mark.parametrize(("each_ns", "expected"), [(101, 0), (100, 1), (34, 2), (33, 3), (14, 7), (2, 50)])
    def test_as_many_as_fit_into_the_interval(self, each_ns: int, expected: int) -> None:
        raw = self.streams(each_ns)
        assert raw["streams"] == expected
        assert all(level["held"] == (level["streams"] <= expected) for level in raw["levels"])

    def test_doubles_then_bisects(self) -> None:
        assert [level["streams"] for level in self.streams(9)["levels"]] == [1, 2, 4, 8, 16, 12, 10, 11]

    def test_no_more_than_most_is_tried(self) -> None:
        raw = self.streams(1, most=20)
        assert raw["streams"] == raw["most"] == 20
        assert [level["streams"] for level in raw["levels"]] == [1, 2, 4, 8, 16, 20]

    @pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 100])
    def test_search_finds_every_answer(self, most: int) -> None:
        for answer in range(most + 1):
            tried: list[int] = []

            def holds(streams: int, answer: int = answer, tried: list[int] = tried) -> bool:
                tried.append(streams)
                return streams <= answer

            assert largest(holds, most) == answer
            assert len(tried) == len(set(tried)) <= 2 * most.bit_length() + 1
            assert max(tried) <= most

    def test_one_late_query_of_64_is_allowed_two_are_not(self) -> None:
        clock = SimulatedClock()
        assert self.PLAN.level(1, clock.work(150, 60), clock).held
        clock = SimulatedClock()
        level = self.PLAN.level(1, clock.work(150, 60, 150, 60), clock)
        assert (level.held, level.late, len(level.latencies_ns)) == (False, 2, 3)  # it stops where it is lost

    def test_a_late_query_skips_the_intervals_it_ran_into(self) -> None:
        clock = SimulatedClock(start_ns=0)
        self.PLAN.level(1, clock.work(250, 60), clock)
        assert clock.slept_until_ns[:4] == [0, 300, 400, 500]


class TestRealtime:
    SETTINGS: ClassVar[dict[str, Any]] = {
        "arrivals_ns": [0, 100, 200, 300],
        "deadline_ns": 100,
        "policy": "latest",
        "capacity": 1,
        "stages": [],
        "frame": [8, 8],
    }

    def test_inference_alone_is_a_stage(self) -> None:
        raw = run("realtime", bench(30), **self.SETTINGS)
        assert [tuple(item) for item in raw["processed"]] == [
            (0, 0, 30),
            (1, 100, 130),
            (2, 200, 230),
            (3, 300, 330),
        ]
        assert raw["stages_ns"] == {"inference": [30, 30, 30, 30]}

    def test_every_result_has_every_stages_time(self) -> None:
        raw = run("realtime", bench(130), **{**self.SETTINGS, "stages": ["overlay", "decode", "resize"]})
        assert list(raw["stages_ns"]) == ["decode", "resize", "inference", "overlay"]
        assert {len(times) for times in raw["stages_ns"].values()} == {len(raw["processed"])}
        assert len(raw["processed"]) + len(raw["dropped"]) + len(raw["pending"]) == 4

    def test_stages_that_do_not_fit_the_arrays_are_named(self) -> None:
        clock = SimulatedClock()
        cycle = [{"x": np.zeros((1, 7), np.float32)}]
        with pytest.raises(RuntimeFault, match=r"\(1, 7\)") as caught:
            Pipeline(SimulatedSession(clock, 1), cycle, ["decode"], (8, 8), clock)
        assert caught.value.cause == "unfit_stages"


class TestStages:
    def test_a_frame_comes_back_as_the_case_it_was_made_from(self) -> None:
        clock = SimulatedClock()
        session = SimulatedSession(clock, 1)
        ramp = np.linspace(-2, 5, 32 * 24, dtype=np.float32).reshape(1, 1, 32, 24)
        pipeline = Pipeline(session, [{"x": np.repeat(ramp, 3, axis=1)}], ["decode", "resize"], (64, 48), clock)
        pipeline.process(0)
        (fed,) = session.fed
        assert fed["x"].shape == (1, 3, 32, 24) and fed["x"].dtype == np.float32  # type: ignore[index]
        # Eight bits over a range of 7, and two bilinear resizings that clip at the borders.
        np.testing.assert_allclose(fed["x"][:, :1, 1:-1, 1:-1], ramp[..., 1:-1, 1:-1], atol=0.06)  # type: ignore[index]

    def test_resize_keeps_constants_and_is_the_identity_at_one_size(self) -> None:
        image = np.arange(20, dtype=np.float32).reshape(4, 5)
        np.testing.assert_array_equal(resize(image, (4, 5)), image)
        np.testing.assert_allclose(resize(np.full((3, 3), 7.0), (10, 11)), 7.0)
        assert resize(image, (8, 2)).shape == (8, 2)

    def test_overlay_tints_where_another_class_than_the_first_wins(self) -> None:
        frame = np.full((4, 4), 100, np.uint8)
        scores = np.zeros((1, 2, 2, 2), np.float32)
        scores[0, 1, 0, 0] = 1
        picture = overlay(frame, scores)
        tinted = (picture != 100).any(axis=2)
        assert tinted.tolist() == [[True] * 2 + [False] * 2] * 2 + [[False] * 4] * 2
        assert picture[0, 0].tolist() == [177, 90, 50]
        np.testing.assert_array_equal(overlay(frame, scores[:, 1:]), picture)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_settings_that_the_agent_does_not_know_are_a_bad_job(name: str) -> None:
    with pytest.raises(RuntimeFault, match=name) as caught:
        make_scenario(name, {"speed": 11})
    assert caught.value.cause == "bad_job"


def test_an_unknown_scenario_is_a_bad_job() -> None:
    with pytest.raises(RuntimeFault, match=f"known: {', '.join(sorted(SCENARIOS))}"):
        make_scenario("closed_loop", {})


def test_one_class_serves_all_scenarios_the_same_way() -> None:
    """Every registered scenario runs on the same bench and answers JSON."""
    settings: dict[str, dict[str, Any]] = {
        "offline": {"samples": 4, "chunks": 2},
        "sustained": {"duration_ns": MS, "window_ns": MS},
        "multi_stream": {"interval_ns": MS, "queries": 64, "percent": 90.0, "most": 2},
        "realtime": TestRealtime.SETTINGS,
        "server": dict(MeasureTable().server.plan(Path()).settings),
    }
    others = set(SCENARIOS) - set(settings)  # these run as a study file asks for them by default
    settings |= {name: dict(getattr(MeasureTable(), name).plan().settings) for name in others}
    assert set(settings) == set(SCENARIOS)
    for name, chosen in settings.items():
        assert run(name, bench(MS // 2), **chosen)
