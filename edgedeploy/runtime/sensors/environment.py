"""The conditions of a run that make the same work faster or slower. Conditions that cannot be read are null with a
reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.sensors import jetson, sysfs

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_TOOL_TIMEOUT_S = 5.0


def snapshot(root: Path = sysfs.SYSTEM) -> dict[str, Any]:
    """Conditions now, of the board whose file system begins at ``root``. ``missing`` maps the fields that are None to the
    reason.

    Units are in the names. ``temperatures_c`` is by zone, ``throttle_events`` by counter since boot; ``throttling_now``
    names what reduces clocks at this moment; ``jetson_clocks`` is the output of that tool, which needs root.
    """
    readers: dict[str, Callable[[], Any]] = {
        "load_1m": lambda: sysfs.load_1m(root),
        "governor": lambda: sysfs.governor(root),
        "power_mode": lambda: jetson.power_mode(root),
        "cpu_mhz": lambda: sysfs.cpu_mhz(root),
        "gpu_mhz": lambda: sysfs.gpu_mhz(root),
        "emc_mhz": lambda: sysfs.emc_mhz(root),
        "clocks_locked": lambda: sysfs.clocks_locked(root),
        "jetson_clocks": _jetson_clocks,
        "temperatures_c": lambda: sysfs.temperatures_c(root),
        "throttle_events": lambda: sysfs.throttle_events(root),
        "throttling_now": lambda: sysfs.throttling_now(root),
        "memory_available_bytes": lambda: sysfs.memory_available_bytes(root),
    }
    return read_all(readers)


def read_all(readers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The value of every reader. A reader that fails gives None, and its reason is in ``missing``."""
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


def governor(root: Path = sysfs.SYSTEM) -> str | None:
    """The clock governors in use, such as ``performance`` or ``performance+schedutil``; None without cpufreq."""
    try:
        return sysfs.governor(root)
    except (OSError, LookupError):
        return None


def _jetson_clocks() -> dict[str, Any]:
    program = shutil.which("jetson_clocks")
    if program is None:
        raise LookupError("no jetson_clocks: this is no Jetson")
    if os.geteuid() != 0:
        raise LookupError("jetson_clocks --show wants root")
    try:
        done = subprocess.run([program, "--show"], capture_output=True, timeout=_TOOL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise LookupError(f"jetson_clocks --show took more than {_TOOL_TIMEOUT_S:g} s") from exc
    shown = jetson.parse_clocks(done.stdout.decode(errors="replace"))
    emc = shown.clocks["EMC"]
    return {
        "locked": shown.locked,
        "emc_mhz": emc.now_mhz,
        "gpu_mhz": shown.clocks["GPU"].now_mhz,
        "power_mode": shown.power_mode,
    }


class BackgroundMeter:
    """CPU time of other processes, from its construction to :meth:`stop`, from the kernel's accounting.

    ``own_cpu_ns`` returns the CPU time so far of all processes that belong to the run, ``cores`` those that they are bound
    to: what runs on others does not count. Empty for the whole machine.
    """

    def __init__(self, own_cpu_ns: Callable[[], int], cores: Sequence[int] = ()) -> None:
        self._own_cpu_ns = own_cpu_ns
        self._cores = tuple(cores)
        self._at_start = self._read()

    def _read(self) -> tuple[int, int, int, int, int]:
        busy_ns, stolen_ns = machine_cpu_ns(Path("/proc/stat").read_text(encoding="ascii"), self._cores)
        return busy_ns, stolen_ns, self._own_cpu_ns(), time.monotonic_ns(), time.time_ns()

    def stop(self) -> dict[str, float | int]:
        """``background_cpu_share`` in cores (1.0: others fully used one core), ``stolen_cpu_share`` in cores (used by
        the hypervisor), ``clock_skew_ns`` (wall clock minus monotonic clock)."""
        was, now = self._at_start, self._read()
        busy_ns, stolen_ns, own_ns, wall_ns, calendar_ns = (now[i] - was[i] for i in range(5))
        return {
            "background_cpu_share": max(0.0, (busy_ns - own_ns) / max(1, wall_ns)),
            "stolen_cpu_share": stolen_ns / max(1, wall_ns),
            "clock_skew_ns": calendar_ns - wall_ns,
        }


def machine_cpu_ns(stat: str, cores: Sequence[int] = ()) -> tuple[int, int]:
    """Busy and stolen CPU time of the whole machine since boot, or of some of its cores, from the text of ``/proc/stat``.

    Guest time is not added: the kernel already counts it in user time.
    """
    wanted = {f"cpu{core}" for core in cores} or {"cpu"}
    busy = stolen = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy, stolen = busy + user + nice + system + irq + softirq, stolen + steal
    tick_ns = 1_000_000_000 // _TICKS_PER_S
    return busy * tick_ns, stolen * tick_ns
