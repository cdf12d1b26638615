"""What an artifact and a board are tonight, and what changed since they were accepted, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from edgedeploy.records.board import BoardInfo
from edgedeploy.records.night import Accepted, ArtifactState, BoardState
from edgedeploy.records.variant import digest_of

CLOCK_FAR: Final = 0.15
"""Share by which clocks differ far from the accepted ones: as much as a run's own clock may drift by default."""

HEAT_FAR_C: Final = 15.0
"""As far as a board may heat up in a run by default."""

_VARYING: Final = ("key", "cpu_mhz", "temperature_c")
_MACHINE: Final = ("serial", "identity", "host_key")
_NAMED: Final[Mapping[str, str]] = {
    "image": "OS image",
    "os": "operating system",
    "runtime": "runtime",
    "python": "Python",
    "power_mode": "power mode",
    "governor": "clock governor",
    "cpu": "processor",
}
"""What makes another board of the same machine, in the order in which it explains the rest."""


def board_state(info: BoardInfo, environment: Mapping[str, Any], runtimes: Mapping[str, str]) -> BoardState:
    """The board in a run. ``environment`` is the run's, ``runtimes`` maps each target that ran to its runtime's version."""
    before, during, asked = (_table(environment.get(name)) for name in ("before", "during", "power_mode_asked"))
    clocks = during.get("cpu_mhz") or [value for value in (before.get("cpu_mhz"),) if value]
    heat = _table(before.get("temperatures_c")).values()
    found = BoardState(
        key="",
        serial=info.serial,
        identity=info.identity,
        host_key=info.host_key,
        cpu=info.cpu,
        os=info.os,
        image=info.image,
        python=info.python,
        runtime=", ".join(f"{name} {version}".strip() for name, version in sorted(runtimes.items())),
        power_mode=str(before.get("power_mode") or asked.get("power_mode") or ""),
        governor=str(before.get("governor") or asked.get("governor") or info.governor or ""),
        cpu_mhz=float(np.median(clocks)) if clocks else None,
        temperature_c=max(map(float, heat), default=None),
    )
    kept = {name: value for name, value in asdict(found).items() if name not in _VARYING}
    return BoardState(**{**asdict(found), "key": digest_of(kept)[:16]})


def is_other_machine(accepted: Accepted, info: BoardInfo) -> bool:
    """Whether another machine answers under the board's name."""
    return bool(info.other_machine(accepted.info))


def board_changes(accepted: Accepted, state: BoardState, info: BoardInfo) -> tuple[str, ...]:
    """What is another than when the entry was accepted on this board, the machine first. Clocks and heat are told where they
    are far away; they change no key."""
    return tuple(_board_changes(accepted, state, info))


def _board_changes(accepted: Accepted, state: BoardState, info: BoardInfo) -> Iterator[str]:
    other = info.other_machine(accepted.info)
    if other:
        yield f"board {info.name!r} answers as another board: {'; '.join(other)}"
    before = accepted.board
    for name, words in _NAMED.items():
        was, now = getattr(before, name), getattr(state, name)
        if was != now:
            yield f"its {words} is {_said(now)}, and was {_said(was)}"
    if before.cpu_mhz and state.cpu_mhz and abs(state.cpu_mhz / before.cpu_mhz - 1) > CLOCK_FAR:
        yield f"its cores run at {state.cpu_mhz:.0f} MHz, and ran at {before.cpu_mhz:.0f} MHz"
    was_c, now_c = before.temperature_c, state.temperature_c
    if was_c is not None and now_c is not None and abs(now_c - was_c) > HEAT_FAR_C:
        yield f"its hottest sensor shows {now_c:.0f} C, and showed {was_c:.0f} C"


def artifact_changes(accepted: ArtifactState, now: ArtifactState) -> tuple[str, ...]:
    """What is shipped against what was accepted: its files, the tools that it says it was built with, its release, and what
    a build from its recipe gives on this host."""
    return tuple(_artifact_changes(accepted, now))


def _artifact_changes(accepted: ArtifactState, now: ArtifactState) -> Iterator[str]:
    files = list(_files(accepted.files, now.files))
    yield from files
    if not files and accepted.digest != now.digest:
        yield "its files are the accepted ones, with other settings or in another precision"
    if accepted.threads != now.threads and None not in (accepted.threads, now.threads):
        yield f"it runs with {now.threads} threads, accepted: {accepted.threads}"
    for name, versions in _differing(accepted.built_with, now.built_with).items():
        yield f"it says it was built with {name} {_said(versions[1])}, accepted: {_said(versions[0])}"
    if accepted.release != now.release and None not in (accepted.release, now.release):
        yield _release(int(accepted.release or 0), int(now.release or 0))
    again, before = now.rebuilt, accepted.rebuilt
    if again is not None and not again.same and (before is None or before.digest != again.digest):
        yield f"built again from its recipe it is another artifact ({again.digest}): {'; '.join(again.differences)}"


def _files(accepted: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name, sums in _differing(accepted, now).items():
        was, found = sums
        if not was:
            yield f"file {name} is new"
        elif not found:
            yield f"file {name} is gone"
        else:
            yield f"file {name} has other bytes (SHA-256 {found[:12]}, accepted: {was[:12]})"


def _release(accepted: int, now: int) -> str:
    if now < accepted:
        return f"it is release {now}, older than the accepted release {accepted}: a downgrade"
    return f"it is release {now}, accepted: release {accepted}"


def _differing(accepted: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """(accepted, now) by name; empty where one has none."""
    names = sorted({*accepted, *now})
    return {name: (accepted.get(name, ""), now.get(name, "")) for name in names if accepted.get(name) != now.get(name)}


def _said(value: str) -> str:
    return value or "unknown"


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
