"""Holds a worker to the memory that its board gives a variant, by the kernel where it lets us, else by looking.

The kernel's way is a control group for memory with the worker in it: what the group is charged with never passes the limit,
and the process that asks for more is ended. A group can be made by root, and by users to whom one was delegated. Elsewhere
the supervisor looks at the worker's resident set and ends it past the limit: a peak between two looks is seen at the next
one (the kernel keeps the highest value), so that no run past the limit passes, but the board's memory was taken meanwhile.

Both leave address space alone (``RLIMIT_AS``, ``RLIMIT_DATA``): runtimes reserve more than they ever touch.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from edgedeploy.runtime.agent.memory import groups, numbers_in, text_of
from edgedeploy.runtime.processes import start_ticks

LOOK_EVERY_S = 0.05
GONE_WITHIN_S = 1.0
CONTROL_GROUP = "control group"
LOOKING = "looking"
"""What held a worker to its limit, as a run's environment says it."""

_NAME = "edgedeploy-"
_LIMIT = ("memory.max", "memory.limit_in_bytes")
_SWAP = (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", "{limit}"))
"""By the names of version 2 of control groups, and of version 1."""

_PEAKS = ("memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes")
_ONE_CHARGE_BYTES = 4 << 20
"""More than the kernel charges at once (a huge page): how far below its limit a group that is full may be."""


class MemoryLimit:
    """One worker's limit, from :meth:`hold` on until :meth:`release`. After that ``ended_it`` says whether the process was
    ended for it; ``by`` is one of the words above."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.by = ""
        self.ended_it = False
        self._group: Path | None = None
        self._done = threading.Event()

    def hold(self, pid: int) -> None:
        """Hold ``pid``, which has just been started, and what it will start."""
        self._group = _group_for(pid, self.limit_bytes)
        self.by = CONTROL_GROUP if self._group is not None else LOOKING
        if self._group is None:
            threading.Thread(target=self._watch, args=(pid,), daemon=True).start()

    def release(self) -> None:
        """When the process has ended or was killed. A group in which one hangs stays; the next one has another name."""
        self._done.set()
        if self._group is not None and ended_by(self._group, self.limit_bytes):
            self.ended_it = True
        give_up_s = time.monotonic() + GONE_WITHIN_S
        while self._group is not None:
            try:
                self._group.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:  # the kernel is still ending it
                if time.monotonic() > give_up_s:
                    return
                time.sleep(0.01)

    def is_passed_by(self, pid: int) -> bool:
        """Whether ``pid`` had more than the limit so far. The caller ends it then."""
        self.ended_it = self.ended_it or _peak_bytes(pid) > self.limit_bytes
        return self.ended_it

    def _watch(self, pid: int) -> None:
        while not self._done.wait(LOOK_EVERY_S):
            if self.is_passed_by(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
                return


def _peak_bytes(pid: int) -> int:
    """The highest resident set of a process so far; 0 when it is gone."""
    return numbers_in(text_of(Path(f"/proc/{pid}/status")), ":").get("VmHWM", 0) * 1024


def _group_for(pid: int, limit_bytes: int) -> Path | None:
    """A new control group that holds ``pid`` to the limit, in the innermost of our own that has room for one; None where
    the kernel does not let us make one."""
    for parent in groups():
        group = parent / f"{_NAME}{os.getpid()}-{uuid.uuid4().hex[:12]}"
        try:
            clear_left(parent)
            group.mkdir()
        except OSError:
            continue
        try:
            if _limited(group, limit_bytes):
                (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
                return group
        except OSError:  # read-only, or a group of version 2 whose parent hands no memory down
            pass
        with suppress(OSError):
            group.rmdir()
    return None


def clear_left(parent: Path) -> None:
    """Remove the groups in ``parent`` whose supervisor was killed before it could: each is named after its own. The kernel
    keeps one with a process in it."""
    for left in parent.glob(f"{_NAME}*-*"):
        supervisor = left.name[len(_NAME) :].partition("-")[0]
        if supervisor.isdigit() and start_ticks(int(supervisor)) is None:
            with suppress(OSError):
                left.rmdir()


def _limited(group: Path, limit_bytes: int) -> bool:
    """Whether the group's memory could be limited; without swap, which would be more memory by another name."""
    for name, (swap, value) in zip(_LIMIT, _SWAP):
        if (group / name).exists():
            (group / name).write_text(str(limit_bytes), encoding="ascii")
            if (group / swap).exists():
                (group / swap).write_text(value.format(limit=limit_bytes), encoding="ascii")
            return True
    return False


def ended_by(group: Path, limit_bytes: int) -> bool:
    """Whether the kernel ended a process of the control group ``group`` because the group was at its limit. It counts there
    too whom it ends because the whole machine, or a group around this one, has no memory left (the kernel's documentation
    of ``memory.events``); ``oom`` counts this very group's, and version 1 keeps the most memory that it had."""
    events = numbers_in(text_of(group / "memory.events"))
    if events:
        return events.get("oom_kill", 0) > 0 and events.get("oom", 0) > 0
    peaks = [text_of(group / name).strip() for name in _PEAKS]
    peak_bytes = max((int(text) for text in peaks if text.isdigit()), default=0)
    killed = numbers_in(text_of(group / "memory.oom_control")).get("oom_kill", 0) > 0
    return killed and peak_bytes >= limit_bytes - _ONE_CHARGE_BYTES
