"""Reads a Jetson's power mode and clocks with NVIDIA's own tools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_STATUS = re.compile(r"pmode:(\d+)")
_NAME = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)\s*>")
_QUERY = re.compile(r"NV Power Mode: *(\S+)\s*\n\s*(\d+)")
_PAIR = re.compile(r"(\w+)=(\S+)")


def power_mode(root: Path) -> str:
    """The active nvpmodel mode as ``NAME (id)``, from the tool's own files: no root and no new process.

    Raises ``LookupError`` where there is no nvpmodel.
    """
    try:
        status = (root / "var/lib/nvpmodel/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        raise LookupError("no nvpmodel: this is no Jetson") from None
    match = _STATUS.search(status)
    if match is None:
        raise LookupError(f"nvpmodel's status is {status[:80]!r}, which names no mode")
    number = int(match.group(1))
    return f"{mode_names(root).get(number, 'unnamed')} ({number})"


def mode_names(root: Path) -> dict[int, str]:
    """Modes that this board's ``/etc/nvpmodel.conf`` defines; numbers differ from board to board and release to release."""
    try:
        text = (root / "etc/nvpmodel.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return {int(match.group(1)): match.group(2) for match in _NAME.finditer("\n".join(lines))}


def parse_query(text: str) -> tuple[int, str]:
    """Number and name from ``nvpmodel -q``. Raises ``ValueError`` for an output of another form."""
    match = _QUERY.search(text)
    if match is None:
        raise ValueError(f"nvpmodel -q printed {text[:200]!r}, which names no mode")
    return int(match.group(2)), match.group(1)


@dataclass(frozen=True)
class ClockRange:
    """Limits and value of one clock in MHz; ``locked`` when both limits are equal."""

    low_mhz: float
    high_mhz: float
    now_mhz: float

    @property
    def locked(self) -> bool:
        return self.low_mhz == self.high_mhz


@dataclass(frozen=True)
class JetsonClocks:
    """``jetson_clocks --show``: clocks by the tool's names (``cpu0``, ``GPU``, ``EMC`` ...), the governors of the cores,
    whether the memory clock is overridden, and the power mode's name."""

    clocks: Mapping[str, ClockRange]
    governors: Mapping[str, str]
    emc_overridden: bool
    power_mode: str

    @property
    def locked(self) -> bool:
        """Whether ``jetson_clocks`` is in force: every core, the GPU and the memory run at one clock."""
        held = [clock.locked for name, clock in self.clocks.items() if name.startswith("cpu") or name == "GPU"]
        return all(held) and self.emc_overridden


def parse_clocks(text: str) -> JetsonClocks:
    """Raises ``ValueError`` when the GPU, the memory or the mode is missing, which means an unknown output format."""
    clocks: dict[str, ClockRange] = {}
    governors: dict[str, str] = {}
    overridden = False
    mode = ""
    for line in text.splitlines():
        if line.startswith("NV Power Mode:"):
            mode = line.partition(":")[2].strip()
        pairs = dict(_PAIR.findall(line))
        if not {"MinFreq", "MaxFreq", "CurrentFreq"} <= pairs.keys():
            continue
        name = line.split()[0].rstrip(":")
        per_mhz = 1e3 if name.startswith("cpu") else 1e6  # cores are in kHz, all else in Hz
        low, high, now = (int(pairs[key]) / per_mhz for key in ("MinFreq", "MaxFreq", "CurrentFreq"))
        clocks[name] = ClockRange(low, high, now)
        if "Governor" in pairs:
            governors[name] = pairs["Governor"]
        if name == "EMC":
            overridden = pairs.get("FreqOverride") == "1"
    if not ({"GPU", "EMC"} <= clocks.keys() and governors and mode):
        raise ValueError(f"jetson_clocks --show printed {text[:200]!r}, which lacks clocks or the power mode")
    return JetsonClocks(clocks, governors, overridden, mode)
