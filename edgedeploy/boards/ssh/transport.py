"""One server over SSH. Every operation has a deadline, even when the peer freezes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgedeploy.boards.drain import Drain, check_flood
from edgedeploy.boards.local import within
from edgedeploy.boards.ssh.channels import SshProcess, send
from edgedeploy.boards.ssh.config import SshTarget, resolve
from edgedeploy.boards.ssh.files import Bounded, Files, open_files
from edgedeploy.boards.ssh.links import Links
from edgedeploy.boards.ssh.quoting import command_line
from edgedeploy.boards.ssh.watchdog import Watchdog
from edgedeploy.errors import CommandFailed, EdgeDeployError, Unreachable
from edgedeploy.files import written
from edgedeploy.interfaces.board import Completed, RemoteProcess

if TYPE_CHECKING:
    import paramiko


class SshTransport:
    """Commands, files and processes of one server. ``connect_timeout_s`` bounds the connection, host key and login,
    ``stall_s`` how long a transfer may stand still."""

    def __init__(self, target: SshTarget, *, connect_timeout_s: float = 10.0, stall_s: float = 15.0) -> None:
        self._endpoint = resolve(target)
        self._connect_timeout_s = connect_timeout_s
        self._stall_s = stall_s
        self._links = Links(self._endpoint, connect_timeout_s)
        self._watchdog = Watchdog(self._links.cut, self._endpoint.address)
        self._opened: Files | None = None
        self._links.open(self._operation)

    @property
    def host_key(self) -> str:
        """Type and fingerprint of the server's host key: what tells it from a clone of its SD card."""
        return self._links.host_key

    def _session(self) -> paramiko.Channel:
        return self._links.session(self._operation)

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed:
        asked = f"{self._endpoint.address}: run {argv[0]}"
        with self._operation(f"run {argv[0]}", timeout_s):
            channel = self._session()
            channel.exec_command(command_line(argv))
            # Both outputs are drained while the input is sent: any of the three could fill its window otherwise.
            output, error = Drain(channel.recv, channel.close), Drain(channel.recv_stderr, channel.close)
            send(channel, stdin)
            channel.shutdown_write()
            stdout, stderr = output.wait(), error.wait()
            check_flood(asked, output, error)
            status = channel.recv_exit_status()
            channel.close()
        if status < 0 and not self._links.is_up():
            raise Unreachable(asked, "the connection was lost before the command ended")
        return Completed(status if status >= 0 else None, stdout, stderr)

    def start(self, argv: Sequence[str]) -> RemoteProcess:
        with self._operation(f"start {argv[0]}", self._connect_timeout_s):
            channel = self._session()
            channel.exec_command(command_line(argv))
        return SshProcess(channel, self._endpoint.address)

    def put(self, source: Path, remote: str, *, timeout_s: float) -> None:
        with self._operation(f"upload to {remote}", timeout_s, self._stall_s) as moved, source.open("rb") as stream:
            self._files().put(stream, remote, source.stat().st_size, moved)

    def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None:
        with self._operation(f"download {remote}", timeout_s, self._stall_s) as moved, written(destination) as stream:
            self._files().get(remote, Bounded(stream, f"download {remote}", limit_bytes), moved)

    def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
        with self._operation(f"read {remote}", timeout_s):
            data = self._files().read(remote, limit_bytes + 1)
        return None if data is None else within(data, remote, limit_bytes)

    def write_bytes(self, remote: str, data: bytes, *, timeout_s: float) -> None:
        with self._operation(f"write {remote}", timeout_s):
            self._files().write(remote, data)

    def close(self) -> None:
        self._links.cut()

    def _files(self) -> Files:
        if self._opened is None:
            self._opened = open_files(self._session, self._endpoint.address, self._links.is_up)
        return self._opened

    @contextmanager
    def _operation(self, what: str, timeout_s: float, stall_s: float | None = None) -> Iterator[Callable[..., None]]:
        """Give one operation a deadline, and turn its failures into this project's errors."""
        import paramiko

        asked = f"{self._endpoint.address}: {what}"
        with self._watchdog.limit(what, timeout_s, stall_s) as progress:
            try:
                yield progress
            except EdgeDeployError:
                raise
            except (paramiko.SSHException, EOFError) as exc:
                raise Unreachable(asked, _text(exc), "Check that the board is up and runs an SSH server") from exc
            except OSError as exc:
                if self._links.is_up() and "closed" not in str(exc).lower():
                    raise CommandFailed(asked, f"the board's file system says: {_text(exc)}") from exc
                raise Unreachable(asked, _text(exc), "Check the board's address, port and network") from exc


def _text(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
