"""A simulated clock: time passes only when somebody works or sleeps. No number that comes from it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


class SimulatedClock:
    """Starts at an arbitrary time, as monotonic clocks do."""

    def __init__(self, start_ns: int = 1_000_000) -> None:
        self.time_ns = start_ns
        self.slept_until_ns: list[int] = []

    def now_ns(self) -> int:
        return self.time_ns

    def sleep_until_ns(self, when_ns: int) -> None:
        self.slept_until_ns.append(when_ns)
        self.time_ns = max(self.time_ns, when_ns)

    def work(self, *durations_ns: int) -> Callable[..., None]:
        """A job that takes these times in turn, and then the last one for ever."""
        left: Iterator[int] = iter(durations_ns)
        last = durations_ns[-1]

        def do(*_: object) -> None:
            self.time_ns += next(left, last)

        return do


class SimulatedSession:
    """A session whose every inference takes simulated time; its output is what it was fed."""

    device = "simulated"
    version = "0"
    inputs: Sequence[str] = ("x",)
    outputs: Sequence[str] = ("x",)

    def __init__(self, clock: SimulatedClock, *durations_ns: int) -> None:
        self._work = clock.work(*durations_ns)
        self.fed: list[object] = []

    def run(self, feeds: object) -> dict[str, object]:
        self.fed.append(feeds)
        self._work()
        return dict(feeds)  # type: ignore[call-overload, no-any-return]

    def executed(self) -> dict[str, int]:
        return {}
