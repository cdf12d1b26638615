"""Records clocks, temperatures and throttling while blocks are timed; before and after a run the board would be idle.

They are read between two blocks, never during one. Each block begins with an untimed query, so that reading does not
affect the timed queries. Right after work, a core still has the clock it worked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.sensors import sysfs

PERIOD_S = 0.5
COOLING_PERIOD_S = 1.0


class ConditionRecorder:
    """``cores`` are the timed cores, whose clocks are read. A reader that has failed is not called again."""

    def __init__(self, cores: Sequence[int], root: Path = sysfs.SYSTEM, period_s: float = PERIOD_S) -> None:
        self._readers: dict[str, Callable[[], Any]] = {
            "cpu_mhz": lambda: sysfs.cpu_mhz(root, cores),
            "hottest_c": lambda: max(sysfs.temperatures_c(root).values()),
            "throttling": lambda: sysfs.throttling_now(root),
        }
        self._values: dict[str, list[Any]] = {name: [] for name in self._readers}
        self._missing: dict[str, str] = {}
        self._period_ns = round(period_s * 1e9)
        self._at_ns: list[int] = []
        self._spent_ns = 0

    def look(self) -> None:
        """Read everything, unless the last reading was less than a period ago."""
        now_ns = time.monotonic_ns()
        if self._at_ns and now_ns - self._at_ns[-1] < self._period_ns:
            return
        self._at_ns.append(now_ns)
        for name, read in list(self._readers.items()):
            try:
                self._values[name].append(read())
            except (OSError, LookupError, ValueError) as exc:
                self._missing[name] = str(exc)
                del self._readers[name]
        self._spent_ns += time.monotonic_ns() - now_ns

    def result(self) -> dict[str, Any]:
        """``at_ns``, ``cpu_mhz`` and ``hottest_c`` of each reading; ``throttling``, all names that were seen;
        ``looking_ns``, the time that reading took; ``missing``, why a value could not be read."""
        found = {name: values for name, values in self._values.items() if name not in self._missing}
        if "throttling" in found:
            found["throttling"] = sorted({name for names in found["throttling"] for name in names})
        return {**found, "at_ns": self._at_ns, "looking_ns": self._spent_ns, "missing": self._missing}


def cool_down(to_c: float, limit_s: float, root: Path = sysfs.SYSTEM) -> dict[str, Any]:
    """Wait until no sensor is hotter than ``to_c``, at most ``limit_s``. Returns a record of the wait."""
    start_ns = time.monotonic_ns()
    try:
        first_c = hottest_c = max(sysfs.temperatures_c(root).values())
        while hottest_c > to_c and time.monotonic_ns() - start_ns < limit_s * 1e9:
            time.sleep(min(COOLING_PERIOD_S, limit_s))
            hottest_c = max(sysfs.temperatures_c(root).values())
    except (OSError, LookupError) as exc:
        return {"missing": str(exc)}
    waited_ns = time.monotonic_ns() - start_ns
    return {"from_c": first_c, "to_c": hottest_c, "asked_c": to_c, "waited_ns": waited_ns}
