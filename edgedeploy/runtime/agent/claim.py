"""The claim on a machine: of all agents whose kernel is one, whatever their roots and containers, one measures at a time.

It is held in several places at once, because containers share some of them and not others:

    an abstract socket      one owner in a network namespace, whoever the user and whatever the root
    /proc/self/ns/time      a lock on the namespace itself, which is one file of the kernel for all that are in it:
                            containers have mounts, networks and processes of their own, and share this one
    /proc/self/ns/user      the same, for kernels older than 5.6, which have no time namespaces

The kernel frees all of them with the process that holds them.

EDGEDEPLOY_PLACE=NAME in the agent's environment names a place of its own instead: it excludes agents with the same name
alone, and the board's notes say so. Tests that judge no time have one each, so that they need not wait for one another.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import ExitStack
from pathlib import Path

MEASURING_SOCKET = "\0edgedeploy.measuring"

PLACE = "EDGEDEPLOY_PLACE"

NAMESPACES = Path("/proc/self/ns")
INITIAL = {"time": 0xEFFFFFFA, "user": 0xEFFFFFFD}
"""The namespaces that are locked, with the inodes that the kernel gives to those which it starts with."""

NOT_SHARED = (
    "its time and user namespaces are its own: if it is a container, it may measure while another container of this machine "
    "does; give it those of the machine, or let one container measure at a time"
)

OWN_PLACE = "{}={} is set: others may measure on this machine at the same time"


class Claim:
    """A claim that may be taken; leaving the context frees it."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.close()

    def take(self) -> bool:
        """Whether this process has the machine to itself now. Whoever is refused holds nothing."""
        with ExitStack() as stack:
            place = os.environ.get(PLACE, "")
            if not _bound(stack, place) or not (place or all(_locked(stack, NAMESPACES / name) for name in INITIAL)):
                return False
            self._held = stack.pop_all()
        return True


def _bound(stack: ExitStack, place: str) -> bool:
    address = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        address.bind(f"{MEASURING_SOCKET}.{place[:64]}" if place else MEASURING_SOCKET)  # the kernel takes 107 bytes
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def _locked(stack: ExitStack, path: Path) -> bool:
    """False when somebody else has it. A place that cannot be locked here counts for nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


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
