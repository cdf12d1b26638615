"""Reads this board's power from Intel's RAPL counters, INA rails of a Jetson, or tegrastats.

A source is an energy counter (joules since it was opened) or an instantaneous power (watts). It names what it covers:
RAPL the processor package, an input rail the whole module. A rail of only one part never stands for the total.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgedeploy.runtime.sensors.sysfs import SYSTEM
from edgedeploy.runtime.sensors.tegrastats import parse

TOTAL_RAILS = (("VDD_IN",), ("POM_5V_IN",), ("VIN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
"""Rails that add up to the whole module, in this order: Xavier NX, TX2, Orin Nano and NX; Nano; Thor; AGX Orin, where
VIN_SYS_5V0 also feeds the memory's rail."""

HIGHEST_W = 2000.0
"""No supported board draws more: a counter that shows more was reset."""

_SHORTEST_STEP_NS = 10_000_000
"""Shortest time assumed between two RAPL reads: the counter moves in steps of about 1 ms, so two quick reads may be a
whole step apart."""


class PowerSource(Protocol):
    """A source of power readings. A protocol, because each vendor's differs. ``kind`` is ``energy`` (J, cumulative) or
    ``power`` (W)."""

    name: str
    scope: str
    kind: str
    period_s: float
    """Shortest time between two reads that give different values."""

    def read(self) -> float: ...
    def close(self) -> None: ...


class _Counter:
    """One RAPL zone: an energy counter that starts again at zero past ``max_energy_range_uj``."""

    def __init__(self, zone: Path, clock_ns: Callable[[], int]) -> None:
        self._file = zone / "energy_uj"
        self._range_uj = int(_text(zone / "max_energy_range_uj"))
        self._clock_ns = clock_ns
        self._last_uj = int(_text(self._file))
        self._last_ns = clock_ns()

    def step_uj(self) -> int:
        """Microjoules since the last call. Raises ``ValueError`` for a step that one counter wrap cannot explain."""
        now_uj, now_ns = int(_text(self._file)), self._clock_ns()
        before_uj, waited_ns = self._last_uj, max(_SHORTEST_STEP_NS, now_ns - self._last_ns)
        step_uj = now_uj - before_uj if now_uj >= before_uj else now_uj - before_uj + self._range_uj
        if step_uj < 0 or step_uj > HIGHEST_W * 1e-3 * waited_ns:
            found = f"{before_uj} uJ, then {now_uj} uJ (range {self._range_uj})"
            raise ValueError(f"{self._file}: {found}: the counter was reset, or wrapped more than once")
        self._last_uj, self._last_ns = now_uj, now_ns
        return step_uj


class Rapl:
    """The sum of the energy counters of all processor packages, corrected for counter wraps."""

    kind = "energy"
    scope = "processor package: cores, caches, integrated GPU; not memory, disks or the board"
    period_s = 0.02

    def __init__(self, root: Path = SYSTEM, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """Raises ``LookupError`` without packages and ``PermissionError`` where only root may read."""
        zones = [path for path in sorted(root.glob("sys/class/powercap/intel-rapl:*")) if path.name.count(":") == 1]
        packages = {zone: name for zone, name in ((zone, _text(zone / "name")) for zone in zones) if "package" in name}
        if not packages:
            raise LookupError("no RAPL package under /sys/class/powercap")
        self._counters = [_Counter(zone, clock_ns) for zone in packages]
        self._total_uj = 0
        self.name = "RAPL " + " + ".join(packages.values())

    def read(self) -> float:
        """Joules since this object was made."""
        self._total_uj += sum(counter.step_uj() for counter in self._counters)
        return self._total_uj / 1e6

    def close(self) -> None:
        pass


class InaRails:
    """INA power monitors through hwmon (L4T 34 and newer, mainline) or iio (L4T 32): the rails that make up the total."""

    kind = "power"
    scope = "everything that the module draws"
    period_s = 0.05

    def __init__(self, root: Path = SYSTEM) -> None:
        """Raises ``LookupError`` when there are no rails, or none that add up to the total."""
        rails = {**_iio_rails(root), **_hwmon_rails(root)}
        if not rails:
            raise LookupError("no INA power monitor under /sys/class/hwmon or /sys/bus/i2c")
        chosen = total_rails(list(rails))
        self._readers = [rails[name] for name in chosen]
        self.name = "INA " + " + ".join(chosen)
        self.read()

    def read(self) -> float:
        """Watts now."""
        return sum(read() for read in self._readers)

    def close(self) -> None:
        pass


class Tegrastats:
    """Watts from the tool's lines, for boards whose INA files this user may not read."""

    kind = "power"
    scope = "everything that the module draws"
    period_s = 0.1

    def __init__(self, program: str | None = None) -> None:
        """Raises ``LookupError`` without the tool, or when its rails name no total; ``ValueError`` for unknown lines."""
        path = program or shutil.which("tegrastats")
        if path is None:
            raise LookupError("no tegrastats: this is no Jetson")
        argv = [path, "--interval", str(round(self.period_s * 1000))]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            first = parse(self._line())
            self._rails = [rail.name for rail in first.rails]
            self._chosen = total_rails(self._rails)
        except BaseException:
            self.close()
            raise
        self.name = "tegrastats " + " + ".join(self._chosen)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise ValueError(f"tegrastats ended after {line!r}")
        return line.decode("ascii", errors="replace")

    def read(self) -> float:
        """Watts of the next line; waits for it. The tool's own average is not used."""
        reading = parse(self._line(), self._rails)
        return sum(reading.rail_mw(name) for name in self._chosen) / 1000.0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def total_rails(names: Sequence[str]) -> tuple[str, ...]:
    """The rails of ``names`` that add up to the whole module. Raises ``LookupError`` when none are known to."""
    for rails in TOTAL_RAILS:
        if all(names.count(rail) == 1 for rail in rails):
            return rails
    raise LookupError(f"none of the rails {', '.join(names)} is known to be the module's total")


def find_source(root: Path = SYSTEM) -> PowerSource:
    """The best source that works here: input rails, the tool that prints them, then RAPL.

    Raises ``LookupError`` with every source's reason.
    """
    reasons = []
    for make in (lambda: InaRails(root), Tegrastats, lambda: Rapl(root)):
        try:
            source: PowerSource = make()
        except PermissionError as exc:
            reasons.append(f"{exc.filename} may be read by root only")
        except (OSError, LookupError, ValueError) as exc:
            reasons.append(str(exc))
        else:
            return source
    raise LookupError("no sensor: " + "; ".join(reasons))


def _hwmon_rails(root: Path) -> dict[str, Callable[[], float]]:
    """Rail label -> reader of watts. Labels that occur twice (``NC``) and channels that only sum others are left
    out."""
    rails: dict[str, Callable[[], float]] = {}
    double = set()
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if not _text_or_empty(chip / "name").startswith("ina"):
            continue
        for label in sorted(chip.glob("in[1-3]_label")):
            name, channel = _text(label), label.name[2]
            voltage, current, power = (chip / f"{kind}{channel}_input" for kind in ("in", "curr", "power"))
            if name in rails:
                double.add(name)
            if power.exists():
                rails[name] = _scaled(1e-6, power)
            elif voltage.exists() and current.exists():
                rails[name] = _scaled(1e-6, voltage, current)  # mV times mA is uW
        lone = chip / "power1_label"
        if lone.exists():
            rails[_text(lone)] = _scaled(1e-6, chip / "power1_input")
    return {name: read for name, read in rails.items() if name not in double}


def _iio_rails(root: Path) -> dict[str, Callable[[], float]]:
    rails = {}
    for label in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio*device*/rail_name_[0-2]")):
        rails[_text(label)] = _scaled(1e-3, label.with_name(f"in_power{label.name[-1]}_input"))
    return rails


def _scaled(factor: float, *paths: Path) -> Callable[[], float]:
    def read() -> float:
        value = factor
        for path in paths:
            value *= int(_text(path))
        return value

    return read


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()


def _text_or_empty(path: Path) -> str:
    try:
        return _text(path)
    except OSError:
        return ""


def describe(source: PowerSource) -> Mapping[str, Any]:
    return {"source": source.name, "scope": source.scope, "kind": source.kind, "period_s": source.period_s}
