"""Many users at one server, on a simulated clock: who waits, who is turned away, and what a simulation of that predicts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from simulated_clock import SimulatedClock, SimulatedSession

from edgedeploy.evidence.serving import predicted_users
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.scenarios.base import Bench, make_scenario
from edgedeploy.runtime.scenarios.queueing import (
    GAP_UNIT,
    RESOLUTION,
    Level,
    Line,
    Load,
    Rules,
    Services,
    arrivals_ns,
    most_users,
)
from edgedeploy.runtime.scenarios.server import Desk, sizes

ALONE = Rules(max_batch=1, max_wait_ns=0, capacity=64, instances=1)


def bench(*durations_ns: int) -> Bench:
    clock = SimulatedClock()
    cycle = [{"x": np.full((1, 2), case, np.float32)} for case in (1, 2, 3)]
    return Bench(SimulatedSession(clock, *durations_ns), cycle, clock, dict)


def poisson(requests: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [round(draw.expovariate(1.0) * GAP_UNIT) for _ in range(requests)]


def served(arrivals: list[int], rules: Rules, *durations_ns: int, deadline_ns: int = 100) -> Level:
    """One load by one instance whose clock is simulated; ``arrivals`` are at one user's pace of one a gap unit."""
    gaps = np.diff([0, *arrivals]).tolist()
    account = Load(gaps, GAP_UNIT, deadline_ns, 90.0, rules).account(1, to_the_end=True)
    clock = SimulatedClock()
    work = clock.work(*durations_ns)
    Desk(account, clock, lambda instance, batch: work()).work(0)
    return account.close(allowed=0)


def timed(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Cells of the service times that a server scenario sent."""
    return [*raw["services"], *raw["rested"]]


def constant(cells: Mapping[tuple[int, int], int]) -> Services:
    return Services({cell: [taken_ns] for cell, taken_ns in cells.items()}, [], 0.0)


class TestQueue:
    def test_latency_counts_from_the_scheduled_arrival(self) -> None:
        level = served([0, 10, 20, 200], ALONE, 30, deadline_ns=65)
        assert level.latencies_ns == [30, 50, 70, 30]
        assert (level.sent, level.late, level.batches) == (4, 1, 4)

    def test_who_finds_the_queue_full_is_turned_away_and_counted(self) -> None:
        level = served([0, 10, 11, 12, 13, 200], Rules(1, 0, 2, 1), 100)
        assert level.shed == [3, 4]  # 1 and 2 wait behind 0
        assert level.latencies_ns == [100, 190, 289, 200]
        assert not level.held

    def test_a_full_batch_leaves_at_once_and_no_batch_is_larger(self) -> None:
        level = served([0, 1, 2, 3, 4], Rules(2, 50, 64, 1), 10)
        # 0 and 1 leave at 1, 2 and 3 at 11; 4 waits its 50 for others.
        assert level.latencies_ns == [11, 10, 19, 18, 60]
        assert level.batches == 3

    def test_a_batch_that_does_not_fill_leaves_when_its_oldest_has_waited(self) -> None:
        level = served([0, 20, 300], Rules(4, 50, 64, 1), 10)
        assert level.latencies_ns == [60, 40, 60]

    def test_without_a_wait_whatever_waits_leaves_together(self) -> None:
        level = served([0, 1, 2, 3], Rules(8, 0, 64, 1), 10)
        assert level.latencies_ns == [10, 19, 18, 17]
        assert level.batches == 2

    def test_a_lost_load_ends_early_and_accounts_for_all_that_came(self) -> None:
        account = Load([GAP_UNIT] * 64, GAP_UNIT, 1, 90.0, ALONE).account(1)
        clock = SimulatedClock()
        work = clock.work(3 * GAP_UNIT)
        Desk(account, clock, lambda instance, batch: work()).work(0)
        level = account.close(allowed=1)
        assert (level.held, level.late) == (False, 2)
        assert len(level.latencies_ns) + len(level.shed) + len(level.pending) == level.sent < 64

    def test_users_ask_at_their_own_pace_together(self) -> None:
        assert arrivals_ns([GAP_UNIT] * 3, users=4, every_ns=1000) == [250, 500, 750]

    def test_a_line_is_as_full_as_on_arrival_whenever_it_is_asked(self) -> None:
        early, late = Line([0, 1, 2, 3], Rules(1, 0, 2, 1)), Line([0, 1, 2, 3], Rules(1, 0, 2, 1))
        for now_ns in range(4):
            early.admit(now_ns)
        late.admit(100)
        assert early.shed == late.shed == [2, 3]
        assert early.waiting == late.waiting == [0, 1]


class TestPrediction:
    @pytest.mark.parametrize("rules", [ALONE, Rules(4, 0, 64, 1), Rules(4, 30, 64, 1), Rules(2, 0, 3, 1)], ids=str)
    @pytest.mark.parametrize("users", [1, 8, 30])
    def test_a_simulation_is_the_server_where_service_times_are_constant(self, rules: Rules, users: int) -> None:
        load = Load(poisson(300), 1000, 200, 99.0, rules)
        account = load.account(users, to_the_end=True)
        clock = SimulatedClock()
        work = clock.work(40)
        Desk(account, clock, lambda instance, batch: work()).work(0)
        cells = {(size, 1): 40 for size in sizes(rules.max_batch)}
        assert load.predicted(users, constant(cells), to_the_end=True) == account.close(load.allowed)

    def test_the_mean_wait_is_that_of_queueing_theory(self) -> None:
        """M/D/1 (Pollaczek and Khinchine): the mean wait is rho / (2 (1 - rho)) service times."""
        load = Load(poisson(60_000, seed=3), 1_000_000, 10**9, 99.0, Rules(1, 0, 10**6, 1))
        level = load.predicted(70, constant({(1, 1): 10_000}), to_the_end=True)
        waited = np.mean(level.latencies_ns) / 10_000 - 1
        assert waited == pytest.approx(0.7 / (2 * 0.3), rel=0.06)

    def test_two_instances_wait_as_erlang_says(self) -> None:
        """M/M/2: the mean wait is C(2, a) / (2 - a) mean service times, C Erlang's formula (a = 1.4: C = 0.5765)."""
        draw = np.random.default_rng(0)
        times = draw.exponential(10_000, 90_000).astype(int).tolist()
        load = Load(poisson(60_000, seed=5), 1_000_000, 10**9, 99.0, Rules(1, 0, 10**6, 2))
        services = Services({(1, 1): times, (1, 2): times[::-1]}, [], 0.0)
        level = load.predicted(140, services, to_the_end=True)
        waited = np.mean(level.latencies_ns) / 10_000 - 1
        assert waited == pytest.approx(0.5765 / 0.6, rel=0.08)

    def test_sizes_between_two_measured_ones_take_what_lies_between(self) -> None:
        services = constant({(1, 1): 10, (4, 1): 40, (8, 1): 60})
        assert [services.service_ns(size, 1) for size in (1, 2, 3, 4, 6, 8)] == [10, 20, 30, 40, 50, 60]

    def test_service_times_are_drawn_in_their_order_from_the_start_given(self) -> None:
        services = Services({(1, 1): [1, 2, 3, 4]}, [], 0.5)
        assert [services.service_ns(1, 1) for _ in range(5)] == [4, 1, 2, 3, 4]


class TestSearch:
    @pytest.mark.parametrize("most", [1, 2, 7, 1000, 100_000])
    @pytest.mark.parametrize("first", [1, 3, 900, 200_000])
    def test_finds_every_answer_within_its_resolution(self, first: int, most: int) -> None:
        for answer in sorted({0, min(most, 2), min(most, 6), most // 3, most - 1, most}):
            tried: list[int] = []

            def holds(users: int, answer: int = answer, tried: list[int] = tried) -> bool:
                tried.append(users)
                return users <= answer

            found = most_users(holds, first, most)
            assert found <= answer <= found + max(1, 0.02 * found)
            assert found == answer or found >= 50
            assert len(tried) == len(set(tried)) < 70
            assert all(1 <= users <= most for users in tried)


class TestScenario:
    SETTINGS: Mapping[str, Any] = {
        "gaps": poisson(200),
        "every_ns": 10_000_000,
        "deadline_ns": 40_000,
        "percent": 90.0,
        "users": 0,
        "most": 100_000,
        "samples": 8,
        "time_limit_ns": 10**15,
        "max_batch": 1,
        "max_wait_ns": 0,
        "capacity": 64,
        "instances": 1,
    }

    def run(self, on: Bench, **changes: Any) -> dict[str, Any]:
        return make_scenario("server", {**self.SETTINGS, **changes}).run(on)

    def test_measured_and_predicted_agree_where_nothing_disturbs(self) -> None:
        raw = self.run(bench(10_000))
        assert predicted_users(raw).users == pytest.approx(raw["users"], rel=2 * RESOLUTION)
        assert 0.3 < raw["users"] * 10_000 / raw["every_ns"] < 1  # of what one instance can do at all

    @pytest.mark.parametrize(("rested_ns", "max_batch"), [(18_000, 1), (5_000, 1), (18_000, 4)])
    def test_what_a_rest_does_to_a_service_time_is_predicted(self, rested_ns: int, max_batch: int) -> None:
        """A batch after a rest takes longer (cold caches) or shorter (a processor that others want too)."""

        class Resting(SimulatedSession):
            def run(self, feeds: Any) -> dict[str, Any]:
                rested = clock.now_ns() > self.ended_ns
                clock.time_ns += rested_ns if rested else 10_000
                self.ended_ns = clock.time_ns
                return dict(feeds)

            ended_ns = 0

        clock = SimulatedClock()
        cycle = [{"x": np.full((1, 2), case, np.float32)} for case in (1, 2, 3)]
        raw = self.run(
            Bench(Resting(clock, 1), cycle, clock, dict), gaps=poisson(1000), samples=400, max_batch=max_batch
        )
        assert predicted_users(raw).users == pytest.approx(raw["users"], rel=0.1)

    def test_sampled_batches_are_as_busy_as_the_server_and_see_all_cases(self) -> None:
        on = bench(10_000)
        raw = self.run(on, samples=400)
        (cell,) = raw["services"]
        (rested,) = raw["rested"]
        share = len(cell["ns"]) / (
            len(cell["ns"]) + len(rested["ns"])
        )  # in M/G/1, of who comes while another is served
        assert share == pytest.approx(raw["users"] * 10_000 / raw["every_ns"], abs=0.15)
        assert {float(feeds["x"][0, 0]) for feeds in on.session.fed[:30]} == {1.0, 2.0, 3.0}

    def test_the_load_that_is_stated_is_the_most_that_held_or_the_one_asked_for(self) -> None:
        raw = self.run(bench(10_000))
        assert raw["at"]["users"] == raw["users"]
        assert raw["at"]["held"]
        raw = self.run(bench(10_000), users=5000)
        assert (raw["at"]["users"], raw["at"]["sent"], raw["at"]["held"]) == (5000, 200, False)
        assert len(raw["at"]["shed"]) > 50  # five times more than it can do: it sheds, and says so

    def test_no_user_at_all(self) -> None:
        raw = self.run(bench(50_000))
        assert (raw["users"], raw["at"], raw["cut"]) == (0, None, False)

    def test_a_search_that_takes_too_long_states_nothing(self) -> None:
        raw = self.run(bench(10_000), time_limit_ns=1)
        assert (raw["users"], raw["at"], raw["cut"]) == (0, None, True)

    def test_a_load_that_takes_longer_than_the_search_may_is_given_up(self) -> None:
        """One user asks 200 times, every 10 ms: the search ends within its second, and not after the load."""
        on = bench(10_000)
        began_ns = on.clock.now_ns()
        raw = self.run(on, time_limit_ns=10**9, most=1)
        assert (raw["users"], raw["at"], raw["cut"], raw["levels"]) == (0, None, True, [])
        assert on.clock.now_ns() - began_ns < 1.01 * 10**9

    def test_slow_batches_are_sampled_as_often_as_the_time_allows(self) -> None:
        raw = self.run(bench(10_000_000), samples=1000, max_batch=4, time_limit_ns=4 * 10**9)
        assert (raw["users"], raw["cut"]) == (0, False)
        counts = [sum(len(cell["ns"]) for cell in timed(raw) if cell["batch"] == size) for size in (1, 2, 4)]
        assert min(counts) == max(counts) < 4e9 / 3e7  # all three sizes take 30 ms together

    def test_batches_carry_more_users_where_they_take_no_longer(self) -> None:
        alone, together = self.run(bench(10_000)), self.run(bench(10_000), max_batch=4)
        assert together["users"] > 1.5 * alone["users"]
        assert [(cell["batch"], cell["busy"]) for cell in together["services"]] == [(1, 1), (2, 1), (4, 1)]

    def test_a_batch_that_mixes_up_its_requests_is_refused(self) -> None:
        class Mixing(SimulatedSession):
            def run(self, feeds: Any) -> dict[str, Any]:
                return {"x": feeds["x"] - feeds["x"].mean()}

        clock = SimulatedClock()
        cycle = [{"x": np.array([[case, 2.0 * case]], np.float32)} for case in (1, 2, 3)]
        on = Bench(Mixing(clock, 1), cycle, clock, dict)
        with pytest.raises(RuntimeFault, match="not its answer alone") as caught:
            self.run(on, max_batch=2)
        assert caught.value.cause == "unfit_batch"

    def test_more_instances_need_a_session_each(self) -> None:
        with pytest.raises(RuntimeFault, match="2 instances"):
            self.run(bench(10), instances=2)
