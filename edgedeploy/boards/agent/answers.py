"""What an agent answers, read into frozen types before anything believes it.

A board may be mad, or somebody else's: a field of another form, a number that cannot be and a name that is a path end here,
as ``CommandFailed``, which is about the board. :mod:`.held` does the same for the result of a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeVar

from edgedeploy.boards.drain import MOST_LINE_BYTES
from edgedeploy.errors import CommandFailed
from edgedeploy.files import parsed
from edgedeploy.records.board import LoadedBundle
from edgedeploy.runtime.wire.serde import WireError, from_json

T = TypeVar("T")

KEEP_IT: Final = "Keep it; run it again"

MOST_MESSAGE: Final = 4000
"""Characters of a message for people: an agent sends 2000 of its log."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Fault:
    """``fault`` is a cause of :class:`~edgedeploy.runtime.faults.RuntimeFault`."""

    fault: str
    message: str


@dataclass(frozen=True)
class Refused:
    """``refused`` is a reason of :class:`~edgedeploy.runtime.faults.BundleError`."""

    refused: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Installed:
    """Whether the agent is in place, and where; or why it cannot be: ``python`` is the version of one that is too old."""

    here: bool = False
    root: str = ""
    path: str = ""
    problem: str = ""
    python: tuple[int, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Granted:
    token: int
    probe: Mapping[str, Any]


@dataclass(frozen=True)
class Started:
    """``missing`` are the hashes of blobs that the board lacks."""

    missing: tuple[str, ...]
    needed_bytes: int = 0
    free_bytes: int = 0


@dataclass(frozen=True)
class Status:
    """A job's ``status.json``, and the end of its ``log`` where the agent was asked."""

    state: str
    cause: str | None = None
    message: str = ""
    side: str = ""
    wait_ns: int = 0
    run_ns: int = 0
    log: str = ""


@dataclass(frozen=True)
class Probe:
    """What a board can tell of itself: its name, provenance, clock and host key are not for it to say."""

    identity: str
    boot_id: str
    cpu: str
    arch: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    os: str
    python: str
    runtimes: Mapping[str, str]
    governor: str | None
    notes: tuple[str, ...] = ()
    power_modes: Mapping[str, Literal["governor", "nvpmodel"]] = field(default_factory=dict)
    serial: str = ""
    image: str = ""
    accelerators: tuple[str, ...] = ()
    isa_known: tuple[str, ...] = ()
    codecs: str = ""
    leased_cores: tuple[int, ...] = ()


def object_of(text: bytes) -> dict[str, Any]:
    """The JSON object in an answer. Raises ``ValueError`` and ``RecursionError``."""
    if len(text) > MOST_LINE_BYTES:
        raise ValueError(f"it is longer than {MOST_LINE_BYTES} bytes")
    return parsed(text)


def read(kind: type[T], asked: str, data: Mapping[str, Any]) -> T:
    """An answer of this kind. Raises ``CommandFailed``, which names the field."""
    try:
        return from_json(kind, data, kept=True)
    except WireError as exc:
        raise odd(asked, str(exc)) from exc


def odd(asked: str, found: str) -> CommandFailed:
    """An answer that cannot be."""
    return CommandFailed(asked, f"the board's answer cannot be: {plain(found)}", KEEP_IT)


def installed(asked: str, data: Mapping[str, Any]) -> Installed:
    found = read(Installed, asked, data)
    if not (found.problem or found.python) and not (found.root.startswith("/") and found.path.startswith("/")):
        raise odd(asked, f"root {found.root!r} and path {found.path!r} are no absolute paths")
    if "\0" in found.root + found.path:
        raise odd(asked, "a path with a NUL in it")
    return replace(found, problem=plain(found.problem), others=tuple(map(plain, found.others)))


def granted(asked: str, data: Mapping[str, Any]) -> Granted:
    found = read(Granted, asked, data)
    if found.token < 0:
        raise odd(asked, f"token {found.token}: expected 0 or more")
    return found


def started(asked: str, data: Mapping[str, Any], wanted: Mapping[str, int]) -> Started:
    """``wanted`` are the blobs of the job, hash to size in bytes: no other can be missing."""
    found = read(Started, asked, data)
    strange = [sha256 for sha256 in found.missing if sha256 not in wanted]
    if strange:
        raise odd(asked, f"missing: {strange[0][:80]!r} is no file of this job")
    if len(set(found.missing)) < len(found.missing):
        raise odd(asked, "missing: a file stands twice")
    if found.needed_bytes < 0 or found.free_bytes < 0:
        raise odd(asked, f"{found.needed_bytes} bytes needed, {found.free_bytes} free: expected 0 or more")
    return found


def status(asked: str, data: Mapping[str, Any], waited_ns: int | None) -> Status:
    """A status; its times are not longer than ``waited_ns``, what this host has waited (None: another clock's)."""
    found = read(Status, asked, data)
    for name, value in (("wait_ns", found.wait_ns), ("run_ns", found.run_ns)):
        if value < 0 or (waited_ns is not None and value > waited_ns):
            raise odd(asked, f"{name} {value}: expected 0 to {waited_ns}, which is how long this host has waited")
    cause = None if found.cause is None else plain(found.cause)
    return replace(found, cause=cause, message=plain(found.message), log=plain(found.log))


def loaded(asked: str, data: Mapping[str, Any]) -> LoadedBundle:
    found = read(LoadedBundle, asked, data)
    if found.proof.cases < 1 or any(value < 0 for value in found.proof.relative_l2.values()):
        raise odd(asked, f"golden vectors: {found.proof.cases} cases, distances {dict(found.proof.relative_l2)}")
    return LoadedBundle(**{**vars(found), "ready": plain(found.ready), "device": plain(found.device)})


def probe(asked: str, data: Mapping[str, Any]) -> Probe:
    found = read(Probe, asked, data)
    if not _DIGEST.fullmatch(found.identity):
        raise odd(asked, f"identity {found.identity[:80]!r}: expected a SHA-256 in hexadecimal digits")
    if found.cores < 1 or found.memory_bytes < 1:
        raise odd(asked, f"{found.cores} cores, {found.memory_bytes} bytes of memory: expected 1 or more of each")
    return Probe(**{name: _plain_all(value) for name, value in vars(found).items()})


def _plain_all(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, tuple):
        return tuple(_plain_all(item) for item in value)
    if isinstance(value, Mapping):
        return {plain(key): _plain_all(item) for key, item in value.items()}
    return value


def plain(text: str) -> str:
    """A board's words for a terminal: no control characters but line ends and tabs, and not more than can be read."""
    shown = text if text.isprintable() else "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
    return shown if len(shown) <= MOST_MESSAGE else f"{shown[:MOST_MESSAGE]} ..."
