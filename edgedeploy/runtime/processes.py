"""Identifies processes although their ids are reused and the machine reboots."""

from __future__ import annotations

import os
import signal
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

_LOOKS = 100
"""At a process that shows no arguments: there are some that never do."""


def boot_id() -> str:
    """Names the current boot of this machine; empty where the kernel does not say."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _stat_fields(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` from the state on (field 3 of proc(5) is index 0); raises ``OSError`` if gone."""
    return _fields(_PROC / str(pid) / "stat")


def _fields(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def start_ticks(pid: int) -> int | None:
    """Clock ticks after boot at which the process started; None when it is gone or only waits to be reaped.

    Read from the first thread's file: qemu-user shows a process an invented ``/proc/PID/stat`` of itself.
    """
    try:
        fields = _fields(_PROC / str(pid) / "task" / str(pid) / "stat")
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def cpu_time_ns(pid: int) -> int:
    """User and system time of a living process so far, in steps of the kernel's tick; 0 when it is gone."""
    try:
        fields = _stat_fields(pid)
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // _TICKS_PER_S


def identity(pid: int) -> dict[str, Any]:
    """A permanent identity of a process. Its id alone is not one: it is reused after the process has ended."""
    return {"pid": pid, "start_ticks": start_ticks(pid), "boot_id": boot_id()}


def is_alive(who: Mapping[str, Any]) -> bool:
    """Whether the process that :func:`identity` described still runs."""
    if who.get("boot_id") != boot_id() or who.get("start_ticks") is None:
        return False
    return start_ticks(int(who["pid"])) == int(who["start_ticks"])


def with_argument(argument: str) -> list[int]:
    """Processes, other than this one, that have exactly ``argument`` on their command line.

    Every process of a job carries the job's random id there, so this finds them whatever happened to their parents.
    """
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = _arguments(entry)
        except OSError:
            continue
        if argument.encode() in arguments:
            found.append(int(entry.name))
    return found


def _arguments(entry: Path) -> list[bytes]:
    """Those of a process. One that begins a program has none for a moment, and then those of the program."""
    for _ in range(_LOOKS):
        arguments = (entry / "cmdline").read_bytes()
        if arguments:
            return arguments.split(b"\0")
        os.readlink(entry / "exe")  # raises where nothing runs: a thread of the kernel, or one that has ended
        time.sleep(0.001)
    return []


def end_all_with_argument(argument: str, patience_s: float = 5.0) -> int:
    """Kill them and wait until they are gone; how many there were. Raises ``TimeoutError`` when one cannot be killed."""
    seen: set[int] = set()
    deadline = time.monotonic() + patience_s
    while True:
        alive = [pid for pid in with_argument(argument) if start_ticks(pid) is not None]
        if not alive:
            return len(seen)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {alive} do not end (hung in the kernel?)")
        for pid in alive:
            seen.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def self_command() -> list[str]:
    """The command line that starts this agent again: the folder or zip that is running, or the package."""
    program = str(Path(sys.argv[0]).resolve())
    if Path(program, "__main__.py").is_file() or zipfile.is_zipfile(program):
        return [sys.executable, program]
    return [sys.executable, "-m", "edgedeploy.runtime"]
