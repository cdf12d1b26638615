"""The conditions of a run: what could make the same work faster or slower. Unreadable ones are null, with the reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CPUS = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_OFF_SENSOR_C = -256.0
"""What Jetson kernels report for a thermal sensor that is powered down."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def snapshot() -> dict[str, Any]:
    """Conditions now. ``missing`` maps the fields that are None to the reason.

    Units: cpu_mhz MHz (mean of all cores), temperatures_c degrees Celsius by zone, throttle_events a count since boot.
    """
    readers: dict[str, Callable[[], Any]] = {
        "load_1m": lambda: os.getloadavg()[0],
        "governor": _governor,
        "cpu_mhz": _cpu_mhz,
        "temperatures_c": _temperatures_c,
        "throttle_events": _throttle_events,
        "memory_available_bytes": _memory_available_bytes,
    }
    values: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, read in readers.items():
        try:
            values[name] = read()
        except (OSError, LookupError, ValueError) as exc:
            values[name] = None
            missing[name] = str(exc)
    values["missing"] = missing
    return values


def governor() -> str | None:
    """The clock governors in use, such as ``performance`` or ``performance+schedutil``; None where there is no say."""
    try:
        return _governor()
    except (OSError, LookupError):
        return None


def _governor() -> str:
    found = {path.read_text(encoding="ascii").strip() for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    if not found:
        raise LookupError(f"no cpufreq under {_CPUS}")
    return "+".join(sorted(found))


def _cpu_mhz() -> float:
    khz = [int(path.read_text(encoding="ascii")) for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if khz:
        return sum(khz) / len(khz) / 1000.0
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    mhz = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    if not mhz:
        raise LookupError("neither cpufreq nor /proc/cpuinfo gives clocks")
    return sum(mhz) / len(mhz)


def _temperatures_c() -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        try:
            name = (zone / "type").read_text(encoding="ascii").strip()
            celsius = int((zone / "temp").read_text(encoding="ascii")) / 1000.0
        except (OSError, ValueError):
            continue  # a zone that is powered down cannot be read; the others still count
        if celsius > _OFF_SENSOR_C:
            found[f"{zone.name} {name}"] = celsius
    if not found:
        raise LookupError(f"no readable zone under {_THERMAL}")
    return found


def _throttle_events() -> int:
    paths = list(_CPUS.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    if not paths:
        raise LookupError("no thermal_throttle counters")
    return sum(int(path.read_text(encoding="ascii")) for path in paths)


def _memory_available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise LookupError("/proc/meminfo has no MemAvailable")


class BackgroundMeter:
    """CPU time that others use, from its construction to :meth:`stop`, by the kernel's own accounting.

    ``own_cpu_ns`` returns the CPU time so far of all processes that belong to the run.
    """

    def __init__(self, own_cpu_ns: Callable[[], int]) -> None:
        self._own_cpu_ns = own_cpu_ns
        self._at_start = self._read()

    def _read(self) -> tuple[int, int, int, int, int]:
        busy_ns, stolen_ns = machine_cpu_ns(Path("/proc/stat").read_text(encoding="ascii"))
        return busy_ns, stolen_ns, self._own_cpu_ns(), time.monotonic_ns(), time.time_ns()

    def stop(self) -> dict[str, float | int]:
        """``background_cpu_share`` in cores (1.0 is one core wholly used by others), ``stolen_cpu_share`` in cores (taken
        by the hypervisor), ``clock_skew_ns`` (wall clock minus monotonic clock)."""
        was, now = self._at_start, self._read()
        busy_ns, stolen_ns, own_ns, wall_ns, calendar_ns = (now[i] - was[i] for i in range(5))
        return {
            "background_cpu_share": max(0.0, (busy_ns - own_ns) / max(1, wall_ns)),
            "stolen_cpu_share": stolen_ns / max(1, wall_ns),
            "clock_skew_ns": calendar_ns - wall_ns,
        }


def machine_cpu_ns(stat: str) -> tuple[int, int]:
    """Busy and stolen CPU time of the whole machine since boot, from the text of ``/proc/stat``.

    Guest time is not added: the kernel already counts it in user time.
    """
    fields = [int(n) for n in stat.split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, stolen = fields[:8]
    tick_ns = 1_000_000_000 // _TICKS_PER_S
    return (user + nice + system + irq + softirq) * tick_ns, stolen * tick_ns
