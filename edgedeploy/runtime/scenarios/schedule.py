"""Replays frames that arrive at given times, wait by a policy and are processed one at a time, and records each one's
fate.

The clock is an argument: the board's own clock replays in real time, and a test's simulated clock makes every number
known. All times are integer nanoseconds after the replay's start.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

POLICIES = ("latest", "bounded", "block")
"""What happens to a frame that has to wait.

- ``latest``: one frame waits; a newer one replaces it.
- ``bounded``: up to ``capacity`` frames wait; a frame that finds no place is dropped.
- ``block``: no frame is dropped; when ``capacity`` frames wait, the next one blocks the source.
"""


class Clock(Protocol):
    """Tells the time and sleeps. A protocol, because tests use a simulated clock."""

    def now_ns(self) -> int: ...

    def sleep_until_ns(self, when_ns: int) -> None:
        """Return at ``when_ns`` or later."""


class MonotonicClock:
    """The board's own clock."""

    def now_ns(self) -> int:
        return time.perf_counter_ns()

    def sleep_until_ns(self, when_ns: int) -> None:
        while True:
            left_ns = when_ns - time.perf_counter_ns()
            if left_ns <= 0:
                return
            time.sleep(left_ns / 1e9)


class Waiting:
    """The frames between the source and the model. ``blocked`` counts the frames that blocked the source."""

    def __init__(self, policy: str, capacity: int) -> None:
        if policy not in POLICIES or capacity < 1:
            raise ValueError(f"policy {policy!r} with capacity {capacity}; known: {', '.join(POLICIES)}, 1 or more")
        self._policy = policy
        self._capacity = 1 if policy == "latest" else capacity
        self._frames: deque[int] = deque()
        self.blocked = 0

    def __len__(self) -> int:
        return len(self._frames)

    def arrive(self, frame: int) -> int | None:
        """Add a frame. Returns the frame that is dropped for it (maybe itself), or None."""
        full = len(self._frames) >= self._capacity
        if full and self._policy == "bounded":
            return frame
        dropped = self._frames.popleft() if full and self._policy == "latest" else None
        self.blocked += full and self._policy == "block"
        self._frames.append(frame)
        return dropped

    def take(self) -> int:
        return self._frames.popleft()

    def rest(self) -> list[int]:
        return list(self._frames)


@dataclass
class Replay:
    """The fate of every frame that arrived: ``processed`` holds (frame, start, end), ``dropped`` (frame, when),
    ``pending`` the frames that still waited when the replay ended."""

    arrivals_ns: Sequence[int]
    deadline_ns: int
    processed: list[tuple[int, int, int]] = field(default_factory=list)
    dropped: list[tuple[int, int]] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    blocked: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "arrivals_ns": list(self.arrivals_ns),
            "deadline_ns": self.deadline_ns,
            "processed": [list(item) for item in self.processed],
            "dropped": [list(item) for item in self.dropped],
            "pending": list(self.pending),
            "blocked": self.blocked,
        }

    @classmethod
    def from_json(cls, data: Any) -> Replay:
        """Raises ``ValueError`` unless every frame that arrived is listed exactly once."""
        replay = cls(
            arrivals_ns=tuple(data["arrivals_ns"]),
            deadline_ns=int(data["deadline_ns"]),
            processed=[(int(f), int(s), int(e)) for f, s, e in data["processed"]],
            dropped=[(int(f), int(at)) for f, at in data["dropped"]],
            pending=[int(f) for f in data["pending"]],
            blocked=int(data["blocked"]),
        )
        seen = [item[0] for item in (*replay.processed, *replay.dropped)] + replay.pending
        if sorted(seen) != list(range(len(replay.arrivals_ns))):
            raise ValueError(f"{len(replay.arrivals_ns)} frames arrived, but {len(seen)} are accounted for")
        return replay

    def ages_ns(self) -> list[int]:
        """Age of each result when it was ready: its end minus the arrival of its frame, in the order of the results."""
        return [end - self.arrivals_ns[frame] for frame, _, end in self.processed]

    def missed(self) -> list[bool]:
        """For each frame, whether it had no result within the deadline after its arrival: it was late, dropped or
        pending."""
        missed = [True] * len(self.arrivals_ns)
        for frame, _, end in self.processed:
            missed[frame] = end - self.arrivals_ns[frame] > self.deadline_ns
        return missed

    def shown_age_ns(self) -> float | None:
        """Mean over time of the newest result's age, from the first result to the last."""
        ready = [(end, self.arrivals_ns[frame]) for frame, _, end in self.processed]
        span_ns = ready[-1][0] - ready[0][0] if ready else 0
        if span_ns <= 0:
            return None
        area = 0
        for index in range(1, len(ready)):
            (shown_ns, arrival_ns), next_ns = ready[index - 1], ready[index][0]
            # The age grows by one each nanosecond: a trapezoid, doubled to stay in whole numbers.
            area += (next_ns - shown_ns) * (shown_ns - arrival_ns + next_ns - arrival_ns)
        return area / 2 / span_ns


def replay(
    arrivals_ns: Sequence[int],
    deadline_ns: int,
    waiting: Waiting,
    process: Callable[[int], object],
    clock: Clock,
) -> Replay:
    """Let the frames arrive at their times and ``process`` them one at a time.

    The replay ends when all frames are processed, or when a frame would start after the last deadline and could only be
    late.
    """
    if not arrivals_ns or arrivals_ns[0] < 0 or list(arrivals_ns) != sorted(arrivals_ns):
        raise ValueError("arrivals have to be one or more times that never go back")
    done = Replay(arrivals_ns, deadline_ns)
    start_ns = clock.now_ns()
    coming = 0
    while True:
        now_ns = clock.now_ns() - start_ns
        while coming < len(arrivals_ns) and arrivals_ns[coming] <= now_ns:
            dropped = waiting.arrive(coming)
            if dropped is not None:
                done.dropped.append((dropped, arrivals_ns[coming]))
            coming += 1
        if not len(waiting):
            if coming == len(arrivals_ns):
                break
            clock.sleep_until_ns(start_ns + arrivals_ns[coming])
        elif now_ns > arrivals_ns[-1] + deadline_ns:
            break
        else:
            frame = waiting.take()
            process(frame)
            done.processed.append((frame, now_ns, clock.now_ns() - start_ns))
    done.pending = waiting.rest()
    done.blocked = waiting.blocked
    return done
