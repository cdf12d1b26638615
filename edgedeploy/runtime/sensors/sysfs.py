"""Reads clocks, temperatures and throttling from a Linux board's files. ``root`` is the root of its file system.

A reader raises ``LookupError`` when the board has no such sensor and ``OSError`` when it may not be read; zero never
stands for an unknown value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

SYSTEM = Path("/")

_OFF_SENSOR_C = -256.0
"""What Jetson kernels report for a thermal sensor that is powered down."""

_COOLING = re.compile(r"(thermal-)?(cpufreq|devfreq)-|Processor$")
"""Cooling devices that reduce clocks; fans, and power limits that are always set, are not among them."""

_FIRMWARE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of Raspberry Pi's get_throttled. They mean "now"; the bits 16 places higher mean "since boot"."""


def governor(root: Path = SYSTEM) -> str:
    """Clock governors in use, such as ``performance`` or ``performance+schedutil``."""
    found = {_text(path) for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")}
    if not found:
        raise LookupError("no cpufreq: this machine gives no say over its clocks")
    return "+".join(sorted(found))


def cpu_mhz(root: Path = SYSTEM, cores: Sequence[int] | None = None) -> float:
    """Mean clock of ``cores`` (all of them when None)."""
    khz = [_number(path) for path in _cpufreq(root, "scaling_cur_freq", cores)]
    if khz:
        return sum(khz) / len(khz) / 1000.0
    lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    mhz = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    if not mhz:
        raise LookupError("neither cpufreq nor /proc/cpuinfo gives clocks")
    chosen = mhz if cores is None else [mhz[core] for core in cores if core < len(mhz)]
    return sum(chosen) / len(chosen)


def clocks_locked(root: Path = SYSTEM) -> bool:
    """Whether every core's lowest and highest clocks are equal, as ``jetson_clocks`` sets them. Needs no root."""
    lows = [_number(path) for path in _cpufreq(root, "scaling_min_freq", None)]
    highs = [_number(path) for path in _cpufreq(root, "scaling_max_freq", None)]
    if not lows:
        raise LookupError("no cpufreq: the limits of the clocks do not show")
    return lows == highs


def gpu_mhz(root: Path = SYSTEM) -> float:
    """Clock of the integrated GPU: Jetson's devfreq device, or Intel's i915 and xe drivers. 0 means that it sleeps."""
    for pattern in ("*.gpu", "*.ga10b", "*.gv11b", "*.gp10b", "*.gm20b"):
        for path in sorted(root.glob(f"sys/class/devfreq/{pattern}/cur_freq")):
            return _number(path) / 1e6
    for pattern in ("gt_act_freq_mhz", "device/tile*/gt*/freq0/act_freq"):
        for path in sorted(root.glob(f"sys/class/drm/card[0-9]*/{pattern}")):
            return float(_number(path))
    raise LookupError("no GPU clock: neither Jetson's devfreq nor Intel's drm files are here")


def emc_mhz(root: Path = SYSTEM) -> float:
    """Clock of a Jetson's memory controller, which affects latency as much as the GPU's clock. Only root may read
    it."""
    for name in ("bpmp/debug/clk/emc/rate", "clk/override.emc/clk_rate"):
        try:
            return _number(root / "sys/kernel/debug" / name) / 1e6
        except FileNotFoundError:
            continue
    raise LookupError("no memory controller clock: this is no Jetson, or debugfs is not mounted")


def temperatures_c(root: Path = SYSTEM) -> dict[str, float]:
    """Degrees Celsius by zone; zones that are powered down are left out."""
    found: dict[str, float] = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        try:
            celsius = _number(zone / "temp") / 1000.0
            name = _text(zone / "type")
        except (OSError, ValueError):
            continue
        if celsius > _OFF_SENSOR_C:
            found[f"{zone.name} {name}"] = celsius
    if not found:
        raise LookupError("no readable zone under /sys/class/thermal")
    return found


def throttle_events(root: Path = SYSTEM) -> dict[str, int]:
    """Counts since boot, by counter: Intel's thermal interrupts, Jetson's over-current and under-voltage events, and
    what Raspberry Pi's firmware has seen since boot (0 or 1)."""
    found: dict[str, int] = {}
    cores = [_number(path) for path in root.glob(_PER_CPU + "core_throttle_count")]
    packages = [_number(path) for path in root.glob(_PER_CPU + "package_throttle_count")]
    if cores:
        found["core"] = sum(cores)
    if packages:
        found["package"] = max(packages)  # repeated on every core of the package
    for path in sorted(root.glob("sys/class/hwmon/hwmon*/oc[0-9]_event_cnt")):
        found[path.name] = _number(path)
    flags = _firmware_flags(root)
    if flags is not None:
        found.update({f"{name} since boot": (flags >> (bit + 16)) & 1 for bit, name in _FIRMWARE_BITS.items()})
    if not found:
        raise LookupError("no throttle counters")
    return found


_PER_CPU = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/"


def throttling_now(root: Path = SYSTEM) -> list[str]:
    """Names of what reduces clocks at this moment; empty when nothing does."""
    found = []
    seen = False
    for path in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind = _text(path / "type")
        if _COOLING.match(kind):
            seen = True
            if _number(path / "cur_state") > 0:
                found.append(kind)
    flags = _firmware_flags(root)
    if flags is not None:
        found += [name for bit, name in _FIRMWARE_BITS.items() if (flags >> bit) & 1]
    elif not seen:
        raise LookupError("no cooling device that takes clocks away")
    return found


def memory_available_bytes(root: Path = SYSTEM) -> int:
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise LookupError("/proc/meminfo has no MemAvailable")


def load_1m(root: Path = SYSTEM) -> float:
    return float((root / "proc/loadavg").read_text(encoding="ascii").split()[0])


def _firmware_flags(root: Path) -> int | None:
    for path in sorted(root.glob("sys/devices/platform/soc*/*firmware*/get_throttled")):
        return int(_text(path), 16)
    return None


def _cpufreq(root: Path, name: str, cores: Sequence[int] | None) -> list[Path]:
    which = ["[0-9]*"] if cores is None else [str(core) for core in cores]
    return [path for core in which for path in sorted(root.glob(f"sys/devices/system/cpu/cpu{core}/cpufreq/{name}"))]


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()


def _number(path: Path) -> int:
    return int(_text(path))
