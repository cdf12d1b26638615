"""A real sshd as a service manager runs it: killed, it is started again on the same port with the same host key."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from edgedeploy.boards.emulated.board import _wait_for_port, find_sshd, kept_port, reach, session_folder
from edgedeploy.boards.emulated.sshd_config import server_config
from edgedeploy.boards.ssh.config import SshTarget, user_name
from edgedeploy.runtime.agent.claim import PLACE


def board_config(folder: Path, port: int) -> str:
    """Of the server of another board than this host: where the test judges no time, its agents measure in a place of their
    own, beside those of the test's other boards."""
    place = os.environ.get(PLACE, "")
    return server_config(folder, port, place and f"{place}-{port}")


class RestartedSshd:
    def __init__(self, folder: Path, port: int) -> None:
        (folder / "sshd_config").write_text(board_config(folder, port), encoding="utf-8")
        self._folder = folder
        self._port = port
        self.target: SshTarget = reach(folder, port, user_name())
        self.start()

    def start(self) -> None:
        argv = [str(find_sshd()), "-D", "-e", "-f", str(self._folder / "sshd_config")]
        with (self._folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
        _wait_for_port(self._daemon, self._port, self._folder / "log")

    def sessions(self) -> list[int]:
        """The daemon's children: one process for each connection."""
        return _children(self._daemon.pid)

    def kill_daemon(self, away_s: float) -> None:
        """SIGKILL, and a new one after a while. Connections that are open stay: other processes serve them."""
        self.stop()
        time.sleep(away_s)
        self.start()

    def kill_session(self) -> bool:
        """SIGKILL whoever serves the latest connection; False when there is none."""
        sessions = self.sessions()
        if not sessions:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(sessions[-1], signal.SIGKILL)
        return True

    def cut_power(self) -> None:
        """The daemon and all connections end at once, and nothing listens until :meth:`start`."""
        pids = self.processes()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._daemon.wait()

    def processes(self) -> list[int]:
        """The daemon, who serves its connections, and the commands that those run."""
        found = [self._daemon.pid]
        for pid in found:
            found += _children(pid)
        return found

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The daemon and who serves its connections stop: sockets stay open and say nothing."""
        pids = [self._daemon.pid, *self.sessions()]
        pids += [pid for session in pids[1:] for pid in _children(session) if _program(pid).startswith("sshd")]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        self._daemon.kill()
        self._daemon.wait()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def restarted_sshd() -> Iterator[RestartedSshd]:
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with session_folder("edgedeploy-sshd-") as folder, kept_port() as port:
        server = RestartedSshd(folder, port)
        try:
            yield server
        finally:
            server.stop()
