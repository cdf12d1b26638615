"""A live source in front of a model: who waits, who is dropped, and that the counts add up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgedeploy.runtime.bundle.stream import Ages, Stream, StreamSummary

MS = 10**6


class HandClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def stream_of(
    policy: str, capacity: int = 1, deadline_ns: int | None = None, work: Callable[[Any], Any] = lambda frame: frame
) -> tuple[Stream, HandClock]:
    clock = HandClock()
    return Stream(work, policy, capacity, deadline_ns, clock), clock


def check_sum(found: StreamSummary) -> None:
    assert found.arrived == found.processed + found.dropped + found.failed + found.pending


def test_the_latest_frame_replaces_the_one_that_waits() -> None:
    stream, clock = stream_of("latest", deadline_ns=5 * MS)
    with stream:
        assert [stream.put(frame) for frame in "abc"] == [True, True, True]
        clock.ns = 3 * MS
        answer = stream.get()
        assert answer is not None and (answer.result, answer.number, answer.age_ns, answer.late) == (
            "c",
            2,
            3 * MS,
            False,
        )
    found = stream.summary()
    assert (found.arrived, found.processed, found.dropped, found.pending, found.missed) == (3, 1, 2, 0, 2)
    check_sum(found)


def test_a_frame_that_finds_no_place_is_dropped() -> None:
    stream, _ = stream_of("bounded", capacity=2)
    with stream:
        assert [stream.put(frame) for frame in "abc"] == [True, True, False]
    assert [answer.result for answer in stream] == ["a", "b"]
    found = stream.summary()
    assert (found.dropped, found.late, found.missed) == (1, 0, None)


def test_late_dropped_failed_and_pending_frames_are_missed() -> None:
    def work(frame: int) -> int:
        clock.ns += frame * MS
        if frame == 3:
            raise ValueError("no answer")
        return frame

    stream, clock = stream_of("bounded", capacity=4, deadline_ns=10 * MS, work=work)
    for frame in (9, 2, 3, 1, 5):
        stream.put(frame)
    answers = [stream.get(), stream.get()]
    assert [(a.age_ns, a.late) for a in answers if a] == [(9 * MS, False), (11 * MS, True)]
    with pytest.raises(ValueError, match="no answer"):
        stream.get()
    stream.close()
    found = stream.summary()
    assert (found.processed, found.late, found.dropped, found.failed, found.pending) == (2, 1, 1, 1, 1)
    assert found.missed == 4 and found.age_max_ns == 11 * MS
    check_sum(found)


def test_the_source_waits_where_nothing_may_be_dropped() -> None:
    stream, _ = stream_of("block", capacity=2)
    got = []
    taker = threading.Thread(target=lambda: got.extend(answer.result for answer in stream))
    stream.put(0)
    stream.put(1)
    with pytest.raises(TimeoutError, match="2 wait"):
        stream.put("refused", timeout_s=0.001)
    taker.start()
    for frame in range(2, 50):
        stream.put(frame)
    stream.close()
    taker.join()
    found = stream.summary()
    assert got == list(range(50))
    assert (found.arrived, found.processed, found.dropped, found.pending) == (50, 50, 0, 0)
    assert found.blocked >= 1


def test_what_a_closed_stream_does() -> None:
    stream, _ = stream_of("latest")
    with pytest.raises(TimeoutError):
        stream.get(timeout_s=0.001)
    stream.put("a", arrived_ns=-5)
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.put("b")
    answer = stream.get()
    assert answer is not None and answer.age_ns == 5
    assert stream.get() is None


def test_many_threads_lose_no_frame() -> None:
    stream, _ = stream_of("bounded", capacity=3)
    taken: list[int] = []
    takers = [threading.Thread(target=lambda: taken.extend(a.number for a in stream)) for _ in range(3)]
    givers = [threading.Thread(target=lambda: [stream.put(n) for n in range(500)]) for _ in range(3)]
    for thread in takers + givers:
        thread.start()
    for thread in givers:
        thread.join()
    stream.close()
    for thread in takers:
        thread.join()
    found = stream.summary()
    assert found.arrived == 1500 and found.pending == found.failed == 0
    assert len(taken) == len(set(taken)) == found.processed == 1500 - found.dropped


@pytest.mark.parametrize(
    ("policy", "capacity", "deadline_ns"), [("newest", 1, None), ("block", 0, None), ("latest", 1, 0)]
)
def test_settings_that_no_stream_has(policy: str, capacity: int, deadline_ns: int | None) -> None:
    with pytest.raises(ValueError):
        stream_of(policy, capacity, deadline_ns)


def test_percentiles_of_ages_are_at_most_one_percent_too_high() -> None:
    drawn = random.Random(7)
    ages = Ages()
    values = sorted(round(drawn.lognormvariate(16, 2)) + 1 for _ in range(2001))
    for value in values:
        ages.add(value)
    for share in (0.5, 0.9, 0.99, 1.0):
        exact = values[-(-int(share * 1000) * 2001 // 1000) - 1]
        found = ages.percentile(share)
        assert found is not None and exact <= found <= 1.01 * exact + 1
    assert Ages().percentile(0.5) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 0, 1.5, "2", True])
@pytest.mark.parametrize("name", ["deadline_ns", "capacity"])
def test_what_is_no_count_or_time_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        stream_of("bounded", **{name: value})


def test_a_frames_time_and_a_wait_are_numbers() -> None:
    stream, _ = stream_of("block")
    for arrived_ns in (float("nan"), float("inf"), 0.5, "now", True):
        with pytest.raises(ValueError, match="arrived_ns"):
            stream.put("a", arrived_ns=arrived_ns)  # type: ignore[arg-type]
    for timeout_s in (float("nan"), -0.1, float("inf")):
        with pytest.raises(ValueError, match="timeout_s"):
            stream.put("a", timeout_s=timeout_s)
        with pytest.raises(ValueError, match="timeout_s"):
            stream.get(timeout_s=timeout_s)
    assert stream.summary().arrived == 0
    assert stream.put("a", arrived_ns=np.int64(5), timeout_s=0)
