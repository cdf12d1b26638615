"""Parses a line of NVIDIA's ``tegrastats`` strictly: an unknown field is an error.

The fields differ by board, by release and with root rights. Two fields look alike: ``GPU@30.5C`` is a temperature,
``GPU 463/463`` a power rail. A rail prints its current power and its average since the start; the first one is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SENSOR_OFF_C = -256.0
"""Printed for a thermal sensor whose block is powered down."""

_MB_IN_KB = {"kB": 1, "MB": 1024}


class TegrastatsError(ValueError):
    """A line that cannot be parsed completely. ``line`` is the raw line, ``at`` the position of the unknown part."""

    def __init__(self, why: str, line: str, at: int) -> None:
        super().__init__(f"{why} at character {at + 1} of {line!r}")
        self.line = line
        self.at = at


@dataclass(frozen=True)
class Load:
    """Load and clocks of a block; None if the line does not give them; ``on`` is False for a block that is off."""

    percent: int | None = None
    mhz: tuple[int, ...] = ()
    on: bool = True


@dataclass(frozen=True)
class Rail:
    """A power rail by its printed name (two may be called ``NC``): mW now, and averaged since tegrastats started."""

    name: str
    now_mw: int
    average_mw: int


@dataclass(frozen=True)
class TegraReading:
    """Memory is in the tool's MB and kB (powers of 1024). ``cpus`` has one :class:`Load` per core; ``gpus`` are the
    blocks called GR3D; ``engines`` are all other blocks by name. ``temperatures_c`` is None for a sensor that is
    off."""

    stamp: str | None
    ram_used_mb: int
    ram_total_mb: int
    largest_free_blocks: int
    largest_free_block_kb: int
    swap_used_mb: int | None
    swap_total_mb: int | None
    cpus: tuple[Load, ...]
    emc: Load | None
    gpus: tuple[Load, ...]
    engines: Mapping[str, Load]
    temperatures_c: Mapping[str, float | None]
    rails: tuple[Rail, ...]

    def rail_mw(self, name: str) -> int:
        """Power now of the rail with this name; raises ``LookupError`` when it is not there exactly once."""
        found = [rail.now_mw for rail in self.rails if rail.name == name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} rails are called {name!r}")
        return found[0]


_STAMP = re.compile(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d")
_FIELDS = {
    "ram": r"RAM (\d+)/(\d+)MB \(lfb (\d+)x(\d+)(kB|MB)\)",
    "swap": r"SWAP (\d+)/(\d+)MB \(cached \d+MB\)",
    "iram": r"IRAM \d+/\d+kB ?\(lfb \d+kB\)",
    "cpus": r"CPU \[([^\]]*)\]",
    "emc": r"EMC_FREQ (\d+)%(?:@(\d+))?",
    "gpu": r"GR3D\d*_FREQ (?:(\d+)%)?(?:@(?:(\d+)|\[(\d+(?:,\d+)*)\]))?",
    "mts": r"MTS fg \d+% bg \d+%",
    "temperature": r"([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C",
    "rail": r"([A-Z]\w*) (-?\d+)(mW)?/(-?\d+)(mW)?",
    "engine": r"([A-Z]\w*) (?:(off)|(?:(\d+)%)?@(\d+)|(\d+))",
}
_DIGITS = r"\d{1,9}"
"""Of a number: what has more is none that a board prints, and thousands of them are none that Python reads."""

_PATTERNS = {
    name: re.compile(pattern.replace(r"\d+", _DIGITS) + r"(?= |$)", re.ASCII) for name, pattern in _FIELDS.items()
}
_CORE = re.compile(r"off|(\d{1,9})%(?:@(\d{1,9}))?", re.ASCII)


def parse(line: str, rails: Sequence[str] | None = None) -> TegraReading:
    """The whole line as a reading. ``rails`` are the names that earlier lines of the same log had.

    Raises :class:`TegrastatsError`, also for a truncated line: every line ends with its power rails. Truncation between
    two rails can only be detected with ``rails``. Truncation inside the last number cannot be detected on a board that
    prints no unit: read whole lines from a stream.
    """
    text = line.rstrip("\r\n")
    stamp = _STAMP.match(text)
    at = stamp.end() + 1 if stamp else 0
    found: dict[str, list[Any]] = {name: [] for name in _PATTERNS}
    while at < len(text):
        name, match = _next_field(text, at)
        if found["rail"] and name != "rail":
            raise TegrastatsError(f"a {name} field after the power rails", text, at)
        found[name].append(match)
        at = match.end() + 1
    for name in ("ram", "cpus"):
        if len(found[name]) != 1:
            raise TegrastatsError(f"{len(found[name])} {name} fields", text, len(text))
    if not found["rail"]:
        raise TegrastatsError("cut: no power rail before the end", text, len(text))
    read = tuple(Rail(rail.group(1), int(rail.group(2)), int(rail.group(4))) for rail in found["rail"])
    if rails is not None and [rail.name for rail in read] != list(rails):
        raise TegrastatsError(f"cut: rails {[rail.name for rail in read]} where {list(rails)} were", text, len(text))
    return _reading(text, stamp.group() if stamp else None, found, read)


def _next_field(text: str, at: int) -> tuple[str, Any]:
    for name, pattern in _PATTERNS.items():
        match = pattern.match(text, at)
        if match is None:
            continue
        if name == "rail" and match.group(3) != match.group(5):
            raise TegrastatsError("cut: a unit on one side only", text, at)
        if name == "gpu" and not any(match.groups()):
            continue
        return name, match
    raise TegrastatsError("not understood", text, at)


def _reading(text: str, stamp: str | None, found: Mapping[str, list[Any]], rails: tuple[Rail, ...]) -> TegraReading:
    used, total, blocks, size, unit = found["ram"][0].groups()
    swap = found["swap"][0].groups() if found["swap"] else (None, None)
    emc = found["emc"][0] if found["emc"] else None
    return TegraReading(
        stamp=stamp,
        ram_used_mb=int(used),
        ram_total_mb=int(total),
        largest_free_blocks=int(blocks),
        largest_free_block_kb=int(size) * _MB_IN_KB[unit],
        swap_used_mb=_whole(swap[0]),
        swap_total_mb=_whole(swap[1]),
        cpus=tuple(_core(text, found["cpus"][0].start(), core) for core in found["cpus"][0].group(1).split(",")),
        emc=Load(int(emc.group(1)), _clocks(emc.group(2))) if emc else None,
        gpus=tuple(Load(_whole(gpu.group(1)), _clocks(gpu.group(2) or gpu.group(3))) for gpu in found["gpu"]),
        engines={match.group(1): _engine(match) for match in found["engine"]},
        temperatures_c={match.group(1): _celsius(match.group(2)) for match in found["temperature"]},
        rails=rails,
    )


def _core(text: str, at: int, core: str) -> Load:
    match = _CORE.fullmatch(core)
    if match is None:
        raise TegrastatsError(f"core {core!r} is neither off nor a percentage", text, at)
    if core == "off":
        return Load(on=False)
    return Load(int(match.group(1)), _clocks(match.group(2)))


def _engine(match: Any) -> Load:
    _, off, percent, mhz, bare = match.groups()
    return Load(on=False) if off else Load(_whole(percent), _clocks(mhz or bare))


def _celsius(text: str) -> float | None:
    value = float(text)
    return None if value == SENSOR_OFF_C else value


def _clocks(text: str | None) -> tuple[int, ...]:
    return tuple(int(mhz) for mhz in text.split(",")) if text else ()


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)
