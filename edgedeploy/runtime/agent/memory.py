"""Why a process was killed: what the kernel tells of memory that ran out, and who had used it.

The kernel counts the processes that it ended for lack of memory, in each control group and in all (``/proc/vmstat``), and
names them in its log, which not everybody may read. Without such evidence nobody knows who killed a process.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_KERNEL_LOG = Path("/dev/kmsg")
_RECORD_BYTES = 8192  # the longest that the kernel gives at once
_LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")
_COUNT_FILES = ("memory.events", "memory.oom_control")
_IN_USE = (("anon", "shmem"), ("total_rss", "total_shmem"))
"""What cannot be dropped without a word, by the names of version 2 of control groups and of version 1."""

_CLOCKS_APART_S = 600
"""How far the clock of the kernel's log, which nobody sets, may be from the monotonic one after months."""

NEARLY_ALL = 0.9
MOST = 0.5


@dataclass(frozen=True)
class Kill:
    """``cause`` is ``memory_limit`` (the board's own for a variant); ``memory_exceeded`` or ``memory_taken`` (by other
    processes) on the kernel's word; ``killed_at_limit`` or ``killed`` without it."""

    cause: str
    message: str


@dataclass(frozen=True)
class KillCount:
    """How often the kernel had ended a process for lack of memory when one was started, and when that was."""

    kills: int
    at_s: float

    @classmethod
    def now(cls, proc: Path = _PROC) -> KillCount:
        return cls(_kills(proc), time.monotonic())


def past_limit(peak_bytes: int, limit_bytes: int, by: str) -> Kill:
    """What is told of a process that was ended because its board gives a variant ``limit_bytes``."""
    held = f"the {_megabytes(limit_bytes)} that this board gives a variant (`memory`, held by {by})"
    return Kill("memory_limit", f"it needs more than {held}: it had {_megabytes(peak_bytes)} when it was ended")


def explain_kill(pid: int, peak_bytes: int, ours_bytes: int, before: KillCount, proc: Path = _PROC) -> Kill:
    """Why ``pid``, gone by SIGKILL, was ended. ``peak_bytes`` is the most memory that it had, ``ours_bytes`` what its job's
    other processes have now."""
    limit_bytes, used_bytes = _memory(proc)
    others_bytes = max(0, used_bytes - ours_bytes)
    had = f"it had used up to {_megabytes(peak_bytes)} of {_megabytes(limit_bytes)}"
    if _kills(proc) > before.kills or _is_logged(pid, before.at_s - _CLOCKS_APART_S):
        ended = "the kernel ended the process for lack of memory"
        if others_bytes > MOST * limit_bytes and peak_bytes < others_bytes:
            return Kill("memory_taken", f"{ended}, of which others had {_megabytes(others_bytes)}; {had}")
        return Kill("memory_exceeded", f"{ended}; {had}")
    if peak_bytes > NEARLY_ALL * limit_bytes:
        return Kill("killed_at_limit", f"the process was killed (SIGKILL), nothing says by whom; {had}")
    return Kill("killed", f"the process was killed (SIGKILL), and nothing says by whom or why; {had}")


def resident_bytes(pid: int, proc: Path = _PROC) -> int:
    """What a process has in memory now; 0 when it is gone."""
    return numbers_in(text_of(proc / str(pid) / "status"), ":").get("VmRSS", 0) * 1024


def _kills(proc: Path) -> int:
    for folder in groups(proc):
        for name in _COUNT_FILES:
            count = numbers_in(text_of(folder / name)).get("oom_kill")
            if count is not None:
                return count
    return numbers_in(text_of(proc / "vmstat")).get("oom_kill", 0)


def _memory(proc: Path) -> tuple[int, int]:
    """The smallest limit that holds for this process, and what is in use below it, in bytes."""
    machine = numbers_in(text_of(proc / "meminfo"), ":")
    limit_bytes = machine.get("MemTotal", 0) * 1024
    used_bytes = limit_bytes - machine.get("MemAvailable", 0) * 1024
    for folder in groups(proc):
        for name, in_use in zip(_LIMIT_FILES, _IN_USE):
            text = text_of(folder / name).strip()
            if text.isdigit() and int(text) < limit_bytes:
                stat = numbers_in(text_of(folder / "memory.stat"))
                limit_bytes, used_bytes = int(text), sum(stat.get(key, 0) for key in in_use)
    return limit_bytes, used_bytes


def groups(proc: Path = _PROC, mounted: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """The folders of this process's control groups for memory, the innermost first. In a container the paths that the kernel
    tells may be those outside of it: then only the container's own is found."""
    found = []
    for line in text_of(proc / "self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            roots = [mounted, mounted / "unified"]
        elif "memory" in controllers.split(","):
            roots = [mounted / "memory"]
        else:
            continue
        for root in roots:
            inner = root / path.strip("/")
            chain = [inner, *inner.parents]
            found += [folder for folder in chain[: chain.index(root) + 1] if folder.is_dir()]
    return found


def _is_logged(pid: int, since_s: float) -> bool:
    """Whether the kernel's log says that it killed ``pid`` for lack of memory."""
    killed = re.compile(rb"(\d+),(\d+),(\d+),[^;]*;.*[Oo]ut of memory.*Kill(?:ed)? process %d\b" % pid)
    try:
        log = os.open(_KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        while True:
            try:
                record = os.read(log, _RECORD_BYTES)
            except BrokenPipeError:  # it was overwritten while we read; the next one is there
                continue
            except OSError:
                return False
            match = killed.match(record)
            if match and int(match[3]) >= since_s * 1e6:
                return True
            if not record:
                return False
    finally:
        os.close(log)


def numbers_in(text: str, separator: str = " ") -> dict[str, int]:
    """``NAME NUMBER ...`` lines as numbers."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(separator)
        words = rest.split()
        if words and words[0].isdigit():
            found[name.strip()] = int(words[0])
    return found


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


def text_of(path: Path) -> str:
    """A file of the kernel's; empty where there is none that we may read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
