"""Who is at work on a night: one process on one machine, so that others can tell whether it is still there."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from edgedeploy.runtime.processes import boot_id, identity, is_alive


@dataclass(frozen=True)
class Holder:
    """``space`` names the processes among which ``pid`` counts: two containers on one machine have two."""

    host: str
    pid: int
    start_ticks: int
    boot_id: str
    space: str

    @classmethod
    def this(cls) -> Holder:
        me = identity(os.getpid())
        return cls(platform.node()[:80], me["pid"], me["start_ticks"] or 0, me["boot_id"], _space())

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Holder | None:
        """None for nobody, and for what another release wrote."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def is_dead(self, silent_s: float, lease_s: float) -> bool:
        """``silent_s`` is how long it was not heard of. Where its process can be seen from here, that alone decides."""
        if self.boot_id and self.boot_id == boot_id() and self.space == _space():
            return not is_alive(asdict(self))
        return silent_s > lease_s

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
