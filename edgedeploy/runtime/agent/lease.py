"""Who holds the board: an exclusive lock for as long as a process lives, and a token that outdates the ones before.

``agent lease`` keeps the lock while heartbeat lines arrive on its standard input. The kernel frees the lock whatever
happens to the process, so it never goes stale; the token, one higher with each lease, tells a holder that was away too
long that somebody else has had the board since.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from edgedeploy.runtime.agent.blobs import discard_parts
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import Root, read_json, write_json
from edgedeploy.runtime.processes import boot_id, end_all_with_argument, identity, is_alive

POLL_S = 0.1
RELEASE = "release"


def hold(
    root: Root,
    *,
    owner: str,
    wait_s: float,
    resume: int | None,
    grant: Callable[[dict[str, Any]], None],
    heartbeats: IO[bytes] | None = None,
    heartbeat_limit_s: float,
) -> None:
    """Take the lease, tell ``grant`` of it, keep it until the heartbeats end, then free it.

    ``resume`` asks for an earlier lease back, with its job still running: granted only if nobody had the board since.
    Raises :class:`RuntimeFault`: ``busy`` past ``wait_s``; ``hung`` when an earlier job cannot be ended; ``lease_lost`` or
    ``rebooted`` when it cannot be resumed.
    """
    source = heartbeats if heartbeats is not None else sys.stdin.buffer
    root.folder.mkdir(parents=True, exist_ok=True)
    if resume is not None:
        _end_former_holder(root, resume)
    with root.lock.open("ab") as lock:
        _lock(root, lock, wait_s, source)
        lease = _take(root, owner, resume)
        grant(lease)
        if _listen(source, heartbeat_limit_s) == RELEASE:
            _end_jobs(root)
            _restore_power_mode(root)
            discard_parts(root)


def check_token(root: Root, token: int) -> None:
    """Raises :class:`RuntimeFault` ``stale_token`` unless ``token`` is that of the lease now held."""
    lease = read_json(root.lease) or {}
    if lease.get("token") != token:
        raise RuntimeFault("stale_token", f"token {token} is outdated: the board's lease is {lease.get('token')}")
    if not is_alive(lease.get("holder", {})):
        raise RuntimeFault("stale_token", f"token {token} is outdated: nobody holds the lease any more")


def _lock(root: Root, lock: IO[bytes], wait_s: float, source: IO[bytes]) -> None:
    give_up_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if time.monotonic() >= give_up_s:
            lease = read_json(root.lease) or {}
            raise RuntimeFault("busy", f"held by {lease.get('owner', 'somebody unknown')} (lease {lease.get('token')})")
        if select.select([source], [], [], POLL_S)[0] and not os.read(source.fileno(), 4096):
            raise RuntimeFault("busy", "whoever asked for the lease went away")


def _end_former_holder(root: Root, token: int) -> None:
    """The holder of the very lease that is resumed may still wait for heartbeats that a dead connection swallowed."""
    lease = read_json(root.lease) or {}
    holder = lease.get("holder", {})
    if lease.get("token") == token and is_alive(holder):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(int(holder["pid"]), signal.SIGKILL)


def _take(root: Root, owner: str, resume: int | None) -> dict[str, Any]:
    before = read_json(root.lease) or {}
    if resume is not None:
        if before.get("boot_id") != boot_id():
            raise RuntimeFault("rebooted", f"the board has rebooted since lease {resume} was granted")
        if before.get("token") != resume:
            raise RuntimeFault("lease_lost", f"lease {resume} is over: the board's lease is {before.get('token')}")
        token = resume
    else:
        _end_jobs(root)
        _restore_power_mode(root)
        token = int(before.get("token", 0)) + 1
    discard_parts(root)  # of the connection that was lost, too: each would take its room until the lease is given back
    lease = {"token": token, "owner": owner, "boot_id": boot_id(), "holder": identity(os.getpid())}
    write_json(root.lease, lease)
    return lease


def _restore_power_mode(root: Root) -> None:
    """Imported by who takes or gives back the board alone: every command of the agent looks at the token."""
    from edgedeploy.runtime.sensors.powermode import PowerModes

    PowerModes(root.folder).restore()


def _end_jobs(root: Root) -> None:
    """End the processes of all jobs and remove their folders. Raises ``hung`` when one cannot be killed."""
    if not root.jobs.is_dir():
        return
    for folder in root.jobs.iterdir():
        try:
            end_all_with_argument(folder.name)
        except TimeoutError as exc:
            raise RuntimeFault("hung", f"an earlier job still runs: {exc}") from exc
        shutil.rmtree(folder, ignore_errors=True)


def _listen(source: IO[bytes], heartbeat_limit_s: float) -> str:
    """Until the input ends, falls silent for too long, or says that the lease is given back (:data:`RELEASE`)."""
    while True:
        if not select.select([source], [], [], heartbeat_limit_s)[0]:
            return "silent"
        data = os.read(source.fileno(), 4096)
        if not data:
            return "gone"
        if RELEASE.encode() in data:
            return RELEASE
