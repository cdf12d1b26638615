"""Who is served and who is not, on a simulated clock: every number is known."""

from __future__ import annotations

import random

import pytest
from simulated_clock import SimulatedClock

from edgedeploy.runtime.scenarios.schedule import POLICIES, MonotonicClock, Replay, Waiting, replay


def run(arrivals: list[int], service: list[int], policy: str, capacity: int = 1, deadline: int = 10) -> Replay:
    clock = SimulatedClock()
    return replay(arrivals, deadline, Waiting(policy, capacity), clock.work(*service), clock)


def test_a_model_that_keeps_up_serves_every_frame_at_its_arrival() -> None:
    done = run([0, 10, 20], [4], "latest")
    assert done.processed == [(0, 0, 4), (1, 10, 14), (2, 20, 24)]
    assert (done.dropped, done.pending, done.blocked) == ([], [], 0)
    assert done.ages_ns() == [4, 4, 4]
    assert done.missed() == [False, False, False]


def test_latest_replaces_the_frame_that_waits() -> None:
    done = run([0, 10, 20, 30, 40], [25], "latest", deadline=100)
    # Frame 1 waits from 10, frame 2 replaces it at 20; frame 3 waits from 30, frame 4 replaces it at 40.
    assert done.processed == [(0, 0, 25), (2, 25, 50), (4, 50, 75)]
    assert done.dropped == [(1, 20), (3, 40)]
    assert done.ages_ns() == [25, 30, 35]
    assert done.missed() == [False, True, False, True, False]


def test_bounded_drops_the_frame_that_finds_no_place() -> None:
    done = run([0, 10, 20, 30, 40], [35], "bounded", capacity=2, deadline=100)
    # 1 and 2 wait; 3 finds both places taken; 4 finds one free since 1 was taken at 35.
    assert done.processed == [(0, 0, 35), (1, 35, 70), (2, 70, 105), (4, 105, 140)]
    assert done.dropped == [(3, 30)]


def test_block_drops_nothing_and_ages_grow() -> None:
    done = run([0, 10, 20, 30], [25], "block", capacity=1, deadline=100)
    assert [item[0] for item in done.processed] == [0, 1, 2, 3]
    assert done.ages_ns() == [25, 40, 55, 70]
    assert done.dropped == []
    assert done.blocked == 2  # 2 and 3 each found another one waiting


def test_frames_at_one_moment_are_served_in_their_order() -> None:
    done = run([5, 5, 5], [1], "block", capacity=3)
    assert done.processed == [(0, 5, 6), (1, 6, 7), (2, 7, 8)]


def test_a_frame_that_could_only_be_late_stays_pending() -> None:
    done = run([0, 10, 20], [50], "block", capacity=9, deadline=15)
    # The last deadline is 35; frame 0 ends at 50.
    assert done.processed == [(0, 0, 50)]
    assert done.pending == [1, 2]
    assert done.missed() == [True, True, True]


def test_the_deadline_itself_is_in_time() -> None:
    assert run([0], [10], "latest", deadline=10).missed() == [False]
    assert run([0], [11], "latest", deadline=10).missed() == [True]


def test_the_clock_is_slept_to_each_arrival_and_never_beyond() -> None:
    clock = SimulatedClock(start_ns=777)
    replay([3, 10, 20], 5, Waiting("latest", 1), clock.work(2), clock)
    assert clock.slept_until_ns == [780, 787, 797]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(20))
def test_every_frame_is_processed_dropped_or_pending(policy: str, seed: int) -> None:
    rng = random.Random(seed)
    arrivals = sorted(rng.randrange(1000) for _ in range(rng.randrange(1, 60)))
    service = [rng.randrange(1, 60) for _ in range(60)]
    done = run(arrivals, service, policy, capacity=rng.randrange(1, 5), deadline=rng.randrange(1, 80))
    seen = [item[0] for item in done.processed] + [item[0] for item in done.dropped] + done.pending
    assert sorted(seen) == list(range(len(arrivals)))
    assert policy != "block" or not done.dropped
    served = [item[0] for item in done.processed]
    assert served == sorted(served)
    for index, (frame, start, end) in enumerate(done.processed):
        assert arrivals[frame] <= start < end
        assert index == 0 or start >= done.processed[index - 1][2]
    assert Replay.from_json(done.as_json()).as_json() == done.as_json()


def test_shown_age_is_the_area_under_the_newest_results_age() -> None:
    done = run([0, 10], [4], "latest")
    # From 4 to 14 frame 0 is shown, its age growing from 4 to 14.
    assert done.shown_age_ns() == 9.0
    assert run([0], [4], "latest").shown_age_ns() is None


def test_lost_and_doubled_frames_are_noticed() -> None:
    whole = run([0, 10], [4], "latest").as_json()
    with pytest.raises(ValueError, match="1 are accounted for"):
        Replay.from_json({**whole, "processed": whole["processed"][:1]})
    with pytest.raises(ValueError, match="3 are accounted for"):
        Replay.from_json({**whole, "pending": [1]})


@pytest.mark.parametrize("arrivals", [[], [-1, 2], [3, 2]])
def test_impossible_arrivals_are_refused(arrivals: list[int]) -> None:
    with pytest.raises(ValueError, match="arrivals"):
        run(arrivals, [1], "latest")


@pytest.mark.parametrize(("policy", "capacity"), [("newest", 1), ("bounded", 0)])
def test_unknown_policies_are_refused(policy: str, capacity: int) -> None:
    with pytest.raises(ValueError, match="policy"):
        Waiting(policy, capacity)


def test_the_boards_clock_never_wakes_early() -> None:
    clock = MonotonicClock()
    when_ns = clock.now_ns() + 2_000_000
    clock.sleep_until_ns(when_ns)
    assert clock.now_ns() >= when_ns
