"""The claim on a machine: of all agents whose kernel is one, whatever their roots and containers, one measures at a time,
or one on each of the cores that were leased apart.

It is held in several places at once, because containers share some of them and not others:

    an abstract socket      one owner in a network namespace, whoever the user and whatever the root
    /proc/self/ns/time      a lock on the namespace itself, which is one file of the kernel for all that are in it:
                            containers have mounts, networks and processes of their own, and share this one
    /proc/self/ns/user      the same, for kernels older than 5.6, which have no time namespaces

The kernel frees all of them with the process that holds them. Who has leased cores takes a socket for each of them and
shares the namespaces, so that others with cores of their own may measure meanwhile; who has the whole machine takes the
sockets of all cores. Between containers with networks of their own only the whole machine is kept apart from cores.

EDGEDEPLOY_PLACE=NAME in the agent's environment names a place of its own instead: it excludes agents with the same name
alone, and the board's notes say so. Tests that judge no time have one each, so that they need not wait for one another.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

MEASURING_SOCKET = "\0edgedeploy.measuring"

SOCKETS = Path("/proc/net/unix")

CORES = os.sysconf("SC_NPROCESSORS_CONF")
"""Of the machine; those that are off at the moment count."""

PLACE = "EDGEDEPLOY_PLACE"

NAMESPACES = Path("/proc/self/ns")
INITIAL = {"time": 0xEFFFFFFA, "user": 0xEFFFFFFD}
"""The namespaces that are locked, with the inodes that the kernel gives to those which it starts with."""

NOT_SHARED = (
    "its time and user namespaces are its own: if it is a container, it may measure while another container of this machine "
    "does; give it those of the machine, or let one container measure at a time"
)

OWN_PLACE = "{}={} is set: others may measure on this machine at the same time"

LEASED = (
    "it has {} of its machine's {}: others may measure on the others at the same time, and share caches, memory and power "
    "with it"
)


class Claim:
    """A claim that may be taken, on the machine or on ``cores`` of it; leaving the context frees it."""

    def __init__(self, cores: Sequence[int] = ()) -> None:
        self._held = ExitStack()
        self._cores = tuple(cores)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    def take(self) -> bool:
        """Whether this process has the machine, or its cores, to itself now. Whoever is refused holds nothing."""
        with ExitStack() as stack:
            place = os.environ.get(PLACE, "")
            names = [_address(place, core) for core in self._cores or range(CORES)]
            names += [] if self._cores else [_address(place)]
            if not all(_bound(stack, name) for name in names):
                return False
            how = fcntl.LOCK_SH if self._cores else fcntl.LOCK_EX
            if not (place or all(_locked(stack, NAMESPACES / name, how) for name in INITIAL)):
                return False
            self._held = stack.pop_all()
        return True


def others_at_work(cores: Sequence[int]) -> list[int]:
    """The cores that others measure on now, beside ``cores``: those of which the kernel lists a socket."""
    try:
        lines = SOCKETS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    listed = {line.split(None, 7)[-1] for line in lines}  # the name is the eighth column, and may hold blanks
    place = os.environ.get(PLACE, "")
    others = (core for core in range(CORES) if core not in cores)
    return [core for core in others if _address(place, core).replace("\0", "@") in listed]


def _address(place: str, core: int | None = None) -> str:
    """The abstract socket of the machine, or of one core of it, in a place. The kernel takes 107 bytes."""
    parts = [MEASURING_SOCKET, *([] if core is None else [f"core{core}"]), *([place[:64]] if place else [])]
    return ".".join(parts)


def _bound(stack: ExitStack, name: str) -> bool:
    address = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        address.bind(name)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def _locked(stack: ExitStack, path: Path, how: int) -> bool:
    """False when somebody else has it. A place that cannot be locked here counts for nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def leased_note(cores: Sequence[int]) -> str:
    """What is to be known of numbers that are measured on leased cores."""
    words = f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"
    return LEASED.format(words, CORES)


def claim_note() -> str:
    """Why the claim may not hold against others on this machine; empty where it does."""
    if place := os.environ.get(PLACE, ""):
        return OWN_PLACE.format(PLACE, place)
    shared = any(_inode(NAMESPACES / name) == inode for name, inode in INITIAL.items())
    return "" if shared or not (NAMESPACES / "net").exists() else NOT_SHARED


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
