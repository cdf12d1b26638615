"""A board that is a labgrid place: acquired before each session, released after it, turned off and on through it.

- edgedeploy runs labgrid's own ``labgrid-client``, because its command line is labgrid's stable interface.
- The place is acquired as ``USER-edgedeploy``, so a place that the user acquired by hand counts as somebody else's.
- labgrid keeps a place for a client that was killed. A file lock on this host is therefore taken first: whoever has the
  lock may take over such a place.
- The board's own lease is used as well: it protects single jobs, while labgrid only coordinates people.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.boards.agent.lease import owner
from edgedeploy.boards.care.quarantine import state_folder
from edgedeploy.boards.ssh.config import user_name
from edgedeploy.errors import Busy, CommandFailed, TargetUnavailable, Unreachable
from edgedeploy.files import lock_file

DEFAULT_COORDINATOR: Final = "127.0.0.1:20408"
CLIENT_TIMEOUT_S: Final = 60.0
POLL_S: Final = 2.0

OUR_OWN: Final = "You have already acquired place {place}."
HELD: Final = ("already acquired", "was not reserved for")
"""Words of ``labgrid-client acquire`` for a place that somebody else has acquired or reserved."""


def labgrid_client() -> str:
    """The path of labgrid-client, beside this Python or on PATH. Raises ``TargetUnavailable`` when it is not
    installed."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    found = shutil.which("labgrid-client", path=places)
    if found is None:
        raise TargetUnavailable("a labgrid place", "labgrid-client is not installed", "pip install 'edgedeploy[lab]'")
    return found


@dataclass(frozen=True)
class Place:
    """One place of one coordinator (``HOST[:PORT]``)."""

    name: str
    coordinator: str
    client: str
    user: str

    @classmethod
    def find(cls, name: str, coordinator: str | None = None) -> Place:
        """Does not contact the coordinator yet. Raises ``TargetUnavailable`` when labgrid is not installed."""
        address = coordinator or os.environ.get("LG_COORDINATOR") or DEFAULT_COORDINATOR
        user = os.environ.get("LG_USERNAME") or user_name()
        return cls(name, address, labgrid_client(), f"{user}-edgedeploy")

    @property
    def power_cycle(self) -> tuple[str, ...]:
        """The command that turns the board off and on; labgrid requires that the place is acquired."""
        return self._command("power", "cycle")

    @contextlib.contextmanager
    def held(self, wait_s: float) -> Iterator[None]:
        """Acquire the place, and release it in any case.

        Raises ``Busy``, which names the holder, when it is not free within ``wait_s``; ``Unreachable`` when the
        coordinator does not answer; ``CommandFailed`` when labgrid refuses.
        """
        give_up_s = time.monotonic() + wait_s
        with self._alone_here(give_up_s):
            try:
                self._acquire(give_up_s)
                yield
            finally:
                self._release()

    @contextlib.contextmanager
    def _alone_here(self, give_up_s: float) -> Iterator[None]:
        """A lock among this user's processes on this host; the system releases it when the process ends."""
        name = hashlib.sha256(f"{self.coordinator} {self.name}".encode()).hexdigest()[:32]
        path = state_folder() / "labgrid" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with io.TextIOWrapper(lock_file(path), encoding="utf-8") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    lock.seek(0)
                    self._pause(give_up_s, f"it is held by {lock.read().strip() or 'another process'}")
            lock.seek(0)
            lock.truncate()
            lock.write(owner())
            lock.flush()
            yield

    def _release(self) -> None:
        """Release only this host's place: labgrid's plain ``release`` would also free what the same user holds on
        another host. If the coordinator does not answer, the place stays acquired and the next session takes it
        over."""
        host = os.environ.get("LG_HOSTNAME") or socket.gethostname()
        with contextlib.suppress(Unreachable):
            self._ask("release-from", f"{host}/{self.user}")

    def _acquire(self, give_up_s: float) -> None:
        while True:
            done = self._ask("acquire")
            said = done.stderr.strip()
            if done.returncode == 0 or OUR_OWN.format(place=self.name) in said:
                return
            if not any(words in said for words in HELD):
                remedy = f"Look at it: labgrid-client -x {self.coordinator} -p {self.name} show"
                raise CommandFailed(self._asked, said[-300:] or f"status {done.returncode}", remedy)
            self._pause(give_up_s, said.partition(". ")[0])

    def _pause(self, give_up_s: float, found: str) -> None:
        if time.monotonic() >= give_up_s:
            raise Busy(self._asked, found, "Wait for it, or ask its holder")
        time.sleep(min(POLL_S, max(0.0, give_up_s - time.monotonic())))

    def _ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run labgrid-client, shielded from Ctrl-C so that an interrupted run still releases. Raises
        ``Unreachable``."""
        try:
            done = subprocess.run(
                self._command(*arguments),
                capture_output=True,
                text=True,
                timeout=CLIENT_TIMEOUT_S,
                check=False,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Unreachable(self._asked, str(exc)) from exc
        if done.returncode == 1 and "connect" in done.stderr.lower():
            raise Unreachable(
                self._asked, done.stderr.strip()[-300:], f"Start it: labgrid-coordinator -l {self.coordinator}"
            )
        return done

    def _command(self, *arguments: str) -> tuple[str, ...]:
        own = ("env", f"LG_USERNAME={self.user}", self.client, "-x", self.coordinator, "-p", self.name)
        return (*own, *arguments)

    @property
    def _asked(self) -> str:
        return f"labgrid place {self.name!r} of {self.coordinator}"
