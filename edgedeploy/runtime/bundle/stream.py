"""A live source in front of a model: frames wait by a policy, and each one's fate is counted.

One thread gives frames (``put``), another takes results (``get``, or a ``for`` loop); one thread may do both. A frame
is processed by the thread that takes its result, so nothing runs unasked, and no result grows old in a second queue.
All times are nanoseconds of ``time.perf_counter_ns``.
"""

from __future__ import annotations

import math
import operator
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable

from edgedeploy.runtime.scenarios.schedule import Waiting

AGE_STEP = 1.01
"""Ages are counted in classes of which each is 1 % above the one before: a stream that runs for months needs no more
memory than one of a minute."""


@dataclass(frozen=True)
class Answer:
    """``number`` counts the frames that were put, from 0. ``age_ns`` is the time from the frame's arrival to its
    result."""

    number: int
    result: Any
    age_ns: int
    late: bool


@dataclass(frozen=True)
class StreamSummary:
    """What became of the frames: ``arrived`` is the sum of ``processed``, ``dropped``, ``failed`` and ``pending``.

    ``missed`` frames had no result within the deadline (late, dropped, failed or pending); it is None without a
    deadline. ``blocked`` frames made the source wait. Percentiles of ages are at most 1 % too high; ages are None
    without a result.
    """

    policy: str
    capacity: int
    deadline_ns: int | None
    arrived: int
    processed: int
    dropped: int
    failed: int
    pending: int
    blocked: int
    late: int
    missed: int | None
    age_p50_ns: int | None
    age_p90_ns: int | None
    age_p99_ns: int | None
    age_max_ns: int | None


class Ages:
    """Counts of ages by class."""

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self.count = 0
        self.largest_ns = 0

    def add(self, age_ns: int) -> None:
        self._classes[math.ceil(math.log(max(age_ns, 1), AGE_STEP))] += 1
        self.count += 1
        self.largest_ns = max(self.largest_ns, age_ns)

    def percentile(self, share: float) -> int | None:
        """The nearest rank's class, by its upper end."""
        left = math.ceil(share * self.count)
        for index in sorted(self._classes):
            left -= self._classes[index]
            if left <= 0:
                return min(self.largest_ns, math.ceil(AGE_STEP**index))
        return None


class Stream:
    """See the module's text; made by ``Model.stream``. All methods may be called from any thread."""

    def __init__(
        self,
        process: Callable[[Any], Any],
        policy: str,
        capacity: int,
        deadline_ns: int | None,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Raises ``ValueError`` for a policy that is none of ``schedule.POLICIES``, and for a capacity or a deadline that is
        no whole number above 0."""
        _check_whole("capacity", capacity, 1)
        if deadline_ns is not None:
            _check_whole("deadline_ns", deadline_ns, 1)
        self._process, self._now_ns = process, now_ns
        self._policy, self._capacity, self._deadline_ns = policy, 1 if policy == "latest" else capacity, deadline_ns
        self._waiting = Waiting(policy, capacity)
        self._frames: dict[int, tuple[Any, int]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._ages = Ages()
        self._arrived = self._dropped = self._failed = self._late = self._blocked = self._running = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """No more frames are taken in. Those that wait can still be got; who leaves them there has them counted as
        pending."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def put(self, frame: Any, arrived_ns: int | None = None, timeout_s: float | None = None) -> bool:
        """Give a frame; False when it was dropped at once. ``arrived_ns`` is when it was captured, where the source
        knows.

        The frame belongs to the stream from now on: whoever fills the same buffer again gives a copy. With the policy
        ``block`` this waits for a place; ``TimeoutError`` when there is none after ``timeout_s``, and the frame has
        then not arrived. Raises ``ValueError`` after :meth:`close`, for a time that is no whole number of nanoseconds, and
        for a ``timeout_s`` that is negative or not finite.
        """
        _check_timeout(timeout_s)
        arrived_ns = self._now_ns() if arrived_ns is None else _check_whole("arrived_ns", arrived_ns)
        with self._changed:
            if self._policy == "block" and len(self._waiting) >= self._capacity and not self._closed:
                self._blocked += 1
                if not self._changed.wait_for(self._has_place, timeout_s):
                    raise TimeoutError(f"no place for a frame within {timeout_s} s: {self._capacity} wait")
            if self._closed:
                raise ValueError("the stream is closed and takes no more frames")
            number = self._arrived
            self._arrived += 1
            self._frames[number] = (frame, arrived_ns)
            dropped = self._waiting.arrive(number)
            if dropped is not None:
                del self._frames[dropped]
                self._dropped += 1
            self._changed.notify_all()
        return dropped != number

    def _has_place(self) -> bool:
        return len(self._waiting) < self._capacity or self._closed

    def get(self, timeout_s: float | None = None) -> Answer | None:
        """Process the next frame; None when the stream is closed and nothing waits. Raises ``TimeoutError`` when no
        frame came within ``timeout_s``, and whatever processing raises: that frame has failed, and the stream goes
        on."""
        _check_timeout(timeout_s)
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiting) or self._closed, timeout_s):
                raise TimeoutError(f"no frame within {timeout_s} s")
            if not len(self._waiting):
                return None
            number = self._waiting.take()
            frame, arrived_ns = self._frames.pop(number)
            self._running += 1
            self._changed.notify_all()
        try:
            result = self._process(frame)
        except BaseException:
            with self._changed:
                self._running -= 1
                self._failed += 1
            raise
        return self._done(number, result, self._now_ns() - arrived_ns)

    def _done(self, number: int, result: Any, age_ns: int) -> Answer:
        late = self._deadline_ns is not None and age_ns > self._deadline_ns
        with self._changed:
            self._running -= 1
            self._late += late
            self._ages.add(age_ns)
        return Answer(number, result, age_ns, late)

    def __iter__(self) -> Iterator[Answer]:
        """Results until the stream is closed and nothing waits."""
        while True:
            answer = self.get()
            if answer is None:
                return
            yield answer

    def summary(self) -> StreamSummary:
        """As of now; frames that wait or are being processed are pending."""
        with self._changed:
            ages = self._ages
            pending = len(self._waiting) + self._running
            missed = self._late + self._dropped + self._failed + pending
            return StreamSummary(
                policy=self._policy,
                capacity=self._capacity,
                deadline_ns=self._deadline_ns,
                arrived=self._arrived,
                processed=ages.count,
                dropped=self._dropped,
                failed=self._failed,
                pending=pending,
                blocked=self._blocked,
                late=self._late,
                missed=None if self._deadline_ns is None else missed,
                age_p50_ns=ages.percentile(0.5),
                age_p90_ns=ages.percentile(0.9),
                age_p99_ns=ages.percentile(0.99),
                age_max_ns=ages.largest_ns if ages.count else None,
            )


def _check_whole(name: str, value: Any, least: int | None = None) -> int:
    """Whole numbers of numpy are some too. Raises ``ValueError``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or (least is not None and value < least):
        raise ValueError(f"{name} {value!r}: a whole number{'' if least is None else f', {least} or more'}")
    return operator.index(value)


def _check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None and not 0 <= timeout_s <= threading.TIMEOUT_MAX:
        raise ValueError(f"timeout_s {timeout_s!r}: 0 or more, or None, which waits for ever")
