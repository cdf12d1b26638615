"""What a board is, and the transport that reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgedeploy.records.board import BoardInfo, LoadedBundle, Provenance
from edgedeploy.records.job import Job, RawRun


@dataclass(frozen=True)
class Completed:
    """A finished remote command. ``exit_status`` None means unknown: only a status file can tell."""

    exit_status: int | None
    stdout: bytes
    stderr: bytes


class RemoteProcess(Protocol):
    """A long-lived remote command that is held open (a lease): lines out, bytes in, and an end."""

    def read_line(self, timeout_s: float) -> str: ...
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Transport(Protocol):
    """One machine's commands and files. A protocol because a board may be this host, SSH, or a lab's own bus.

    Every call has a deadline and raises ``Unreachable`` past it; ``CommandFailed`` is the machine's own refusal, and
    what sends more than ``limit_bytes`` (of a command: more than any has to say).
    """

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed: ...
    def start(self, argv: Sequence[str]) -> RemoteProcess: ...
    def put(self, source: Path, remote: str, *, timeout_s: float) -> None: ...
    def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None: ...
    def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None: ...
    def write_bytes(self, remote: str, data: bytes, *, timeout_s: float) -> None: ...
    def close(self) -> None: ...


class BoardSession(Protocol):
    """A board that is connected and exclusively held."""

    info: BoardInfo

    def measure(self, job: Job, collect_into: Path) -> RawRun:
        """Upload what is missing, run the agent, collect. Raises ``BoardError`` or ``MeasurementError``."""


@runtime_checkable
class LoadsBundles(Protocol):
    """A session whose board has the runtime for bundles. A protocol of its own because a board of another package may
    not."""

    def load_bundle(self, archive: Path, trust: Path | None) -> LoadedBundle:
        """Bring a bundle's archive and the maker's public key to the board and load it there: verified, compatible,
        golden vectors run. Raises ``BoardError``, and ``BundleError`` when the board refuses it."""


class Board(Protocol):
    """One machine that runs artifacts. A protocol because this host, an SSH host and an emulator differ in set-up."""

    name: str
    provenance: Provenance

    def probe(self) -> BoardInfo:
        """Connect, look, disconnect. Raises ``BoardError``."""

    def session(self) -> AbstractContextManager[BoardSession]:
        """Connect and hold the board; raises ``Busy`` when somebody else holds it past the wait."""


@runtime_checkable
class Powered(Protocol):
    """A board that may be turned off and on from here. A protocol of its own because most boards cannot."""

    has_power_control: bool

    def power_cycle(self) -> None:
        """Turn it off and on and wait until it answers. Raises ``BoardError``."""
