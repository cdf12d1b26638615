"""What stands on the recorded lines of tegrastats, read off by eye, not by the parser: ``data/tegrastats/seen.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgedeploy.runtime.sensors.tegrastats import Load

RECORDED: Final = Path(__file__).resolve().parent / "data" / "tegrastats"


@dataclass(frozen=True)
class Seen:
    """What stands on a line. A core is (percent, MHz) or None when it is off; ``off`` names the sensors at -256 C;
    ``emc`` is (percent, MHz), MHz None where none is printed. Memory is in MB (``lfb``: blocks, and kB of one),
    temperatures in C, rails are (name, mW now, mW on average)."""

    ram: tuple[int, int]
    lfb: tuple[int, int]
    swap: tuple[int, int] | None
    cpus: list[tuple[int, int] | None]
    emc: tuple[int, int | None] | None
    gpus: list[Load]
    temperatures: dict[str, float]
    rails: list[tuple[str, int, int]]
    off: set[str] = field(default_factory=set)
    engines: dict[str, Load] = field(default_factory=dict)
    stamp: str | None = None


def _load(data: dict[str, Any]) -> Load:
    return Load(data.get("percent"), tuple(data.get("mhz", ())), on=data.get("on", True))


def _pair(data: list[Any] | None) -> Any:
    return None if data is None else tuple(data)


def _seen(data: dict[str, Any] | None) -> Seen | None:
    """None for a line that was cut by the recording."""
    if data is None:
        return None
    return Seen(
        ram=_pair(data["ram"]),
        lfb=_pair(data["lfb"]),
        swap=_pair(data.get("swap")),
        cpus=[_pair(core) for core in data["cpus"]],
        emc=_pair(data.get("emc")),
        gpus=[_load(gpu) for gpu in data["gpus"]],
        temperatures=data["temperatures"],
        rails=[_pair(rail) for rail in data["rails"]],
        off=set(data.get("off", ())),
        engines={name: _load(engine) for name, engine in data.get("engines", {}).items()},
        stamp=data.get("stamp"),
    )


SEEN: Final[dict[str, list[Seen | None]]] = {
    name: [_seen(line) for line in lines]
    for name, lines in json.loads((RECORDED / "seen.json").read_text(encoding="utf-8")).items()
}
"""By the recorded file, in the order of its lines."""
