"""One SSH connection. Every operation has a deadline, even when the peer freezes."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.boards.local import within
from edgedeploy.boards.ssh.config import Endpoint, SshTarget, resolve
from edgedeploy.boards.ssh.hostkeys import KnownHosts, prefer_known
from edgedeploy.boards.ssh.login import log_in
from edgedeploy.boards.ssh.watchdog import Watchdog
from edgedeploy.errors import CommandFailed, EdgeDeployError, Unreachable
from edgedeploy.interfaces.board import Completed, RemoteProcess

if TYPE_CHECKING:
    import paramiko

PIECE_BYTES = 256 * 1024
"""Larger writes to a channel are split into windows and are fifty times slower."""


class SshTransport:
    """Commands, files and processes of one server. ``connect_timeout_s`` bounds the connection, host key and login,
    ``stall_s`` how long a transfer may stand still."""

    def __init__(self, target: SshTarget, *, connect_timeout_s: float = 10.0, stall_s: float = 15.0) -> None:
        self._endpoint = resolve(target)
        self._hops: list[paramiko.Transport] = []
        self._connect_timeout_s = connect_timeout_s
        self._stall_s = stall_s
        self._watchdog = Watchdog(self._cut, self._endpoint.address)
        self._sftp: paramiko.SFTPClient | None = None
        self._transport = self._connect()

    def _connect(self) -> paramiko.Transport:
        """Connect through every jump server to the board; raises ``Unreachable`` or ``HostKeyError``."""
        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its tracebacks are our errors' causes
        link: Any = None
        try:
            for hop in (*self._endpoint.jumps, self._endpoint):
                link = self._open_hop(hop, link)
        except BaseException:
            self._cut()
            raise
        return self._hops[-1]

    def _open_hop(self, hop: Endpoint, link: Any) -> Any:
        """Log in to ``hop`` through ``link`` (None: directly); returns the transport that leads on from there."""
        import paramiko

        with self._operation(f"connect to {hop.address}", self._connect_timeout_s):
            transport = paramiko.Transport(_socket_to(hop, link, self._connect_timeout_s))
            self._hops.append(transport)
            records = KnownHosts(hop.known_hosts, hop.record_names)
            options = transport.get_security_options()
            options.key_types = prefer_known(list(options.key_types), records.trusted())
            transport.start_client(timeout=self._connect_timeout_s)
            address = hop.host if hop.port == 22 else f"-p {hop.port} {hop.host}"
            records.check(transport.get_remote_server_key(), address)
            log_in(transport, hop)
        return transport

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed:
        with self._operation(f"run {argv[0]}", timeout_s):
            channel = self._transport.open_session()
            channel.exec_command(command_line(argv))
            # Both outputs are drained while the input is sent: any of the three could fill its window otherwise.
            output, error = _Drain(channel.recv), _Drain(channel.recv_stderr)
            _send(channel, stdin)
            channel.shutdown_write()
            stdout, stderr = output.wait(), error.wait()
            status = channel.recv_exit_status()
            channel.close()
        if status < 0 and not self._transport.is_active():
            raise Unreachable(
                f"{self._endpoint.address}: run {argv[0]}", "the connection was lost before the command ended"
            )
        return Completed(status if status >= 0 else None, stdout, stderr)

    def start(self, argv: Sequence[str]) -> RemoteProcess:
        with self._operation(f"start {argv[0]}", self._connect_timeout_s):
            channel = self._transport.open_session()
            channel.exec_command(command_line(argv))
        return SshProcess(channel, self._endpoint.address)

    def put(self, source: Path, remote: str, *, timeout_s: float) -> None:
        with self._operation(f"upload to {remote}", timeout_s, self._stall_s) as moved, source.open("rb") as stream:
            self._files().putfo(stream, remote, file_size=source.stat().st_size, callback=moved)

    def get(self, remote: str, destination: Path, *, timeout_s: float) -> None:
        with self._operation(f"download {remote}", timeout_s, self._stall_s) as moved, destination.open("wb") as stream:
            self._files().getfo(remote, stream, callback=moved)

    def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
        with self._operation(f"read {remote}", timeout_s):
            try:
                with self._files().open(remote, "rb") as stream:
                    data = stream.read(limit_bytes + 1)
            except FileNotFoundError:
                return None
        return within(data, remote, limit_bytes)

    def write_bytes(self, remote: str, data: bytes, *, timeout_s: float) -> None:
        with self._operation(f"write {remote}", timeout_s), self._files().open(remote, "wb") as stream:
            stream.set_pipelined(True)
            stream.write(data)

    def close(self) -> None:
        self._cut()

    def _files(self) -> paramiko.SFTPClient:
        import paramiko

        if self._sftp is None:
            self._sftp = paramiko.SFTPClient.from_transport(self._transport)
            assert self._sftp is not None
        return self._sftp

    def _cut(self) -> None:
        """End every connection at once. The first socket is closed first: any blocked call then returns, and closing
        the others cannot block on a peer that does not read."""
        for transport in self._hops[:1]:
            _break(transport.sock)
        for transport in reversed(self._hops):
            transport.close()

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
                if self._connected() and "closed" not in str(exc).lower():
                    raise CommandFailed(asked, f"the board's file system says: {_text(exc)}") from exc
                raise Unreachable(asked, _text(exc), "Check the board's address, port and network") from exc

    def _connected(self) -> bool:
        return bool(self._hops) and self._hops[-1].is_authenticated() and self._hops[-1].is_active()


def command_line(argv: Sequence[str]) -> str:
    """The command line for the server's shell, with every argument quoted. ``exec`` replaces the shell, which would
    otherwise report the signal of a killed command as an ordinary exit status."""
    return f"exec {shlex.join(argv)}"


def _text(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


def _socket_to(hop: Endpoint, link: Any, timeout_s: float) -> Any:
    import paramiko

    if link is not None:
        return _Tunnel(link.open_channel("direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=timeout_s))
    if hop.proxy_command:
        return paramiko.ProxyCommand(proxy_line(hop.proxy_command))
    connection = socket.create_connection((hop.host, hop.port), timeout=timeout_s)
    # Small requests and answers: waiting to fill a packet costs 50 ms each.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def proxy_line(command: str) -> str:
    """The user's own ProxyCommand, run by the user's shell as OpenSSH runs it; names in it were checked before."""
    return shlex.join([os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"])


class _Tunnel:
    """A jump server's channel as a socket that may be closed after its connection; a plain channel raises then."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        with suppress(EOFError, OSError):
            self._channel.close()


def _break(connection: Any) -> None:
    """Shut a connection down while others read it. Closing its descriptor instead could give its number to another
    file."""
    with suppress(OSError):
        if isinstance(connection, socket.socket):
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.close()


def _send(channel: paramiko.Channel, data: bytes) -> None:
    """Send ``data`` to a command. A command may end without reading it; its exit status shows whether it failed."""
    try:
        for start in range(0, len(data), PIECE_BYTES):
            channel.sendall(data[start : start + PIECE_BYTES])
    except OSError:
        if not channel.get_transport().is_active():
            raise


class _Drain:
    """Reads one stream of a channel to its end, in a thread."""

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._pieces: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while piece := self._receive(PIECE_BYTES):
            self._pieces.append(piece)

    def wait(self) -> bytes:
        self._thread.join()
        return b"".join(self._pieces)


class SshProcess:
    """A remote command that keeps running. Its standard error is not read, because no such command writes there."""

    def __init__(self, channel: paramiko.Channel, address: str) -> None:
        self._channel = channel
        self._address = address
        self._text = b""

    def read_line(self, timeout_s: float) -> str:
        """The next line without its end; empty when the process has closed its output. Raises ``Unreachable``."""
        self._channel.settimeout(timeout_s)
        try:
            while b"\n" not in self._text:
                data = self._channel.recv(PIECE_BYTES)
                if not data:
                    break
                self._text += data
        except (OSError, EOFError) as exc:
            raise Unreachable(f"{self._address}: a line from a command", f"none within {timeout_s:g} s") from exc
        line, _, self._text = self._text.partition(b"\n")
        return line.decode("utf-8", errors="replace")

    def write(self, data: bytes) -> None:
        self._channel.settimeout(5.0)
        try:
            self._channel.sendall(data)
        except (OSError, EOFError) as exc:
            raise Unreachable(f"{self._address}: write to a command", _text(exc)) from exc

    def close(self) -> None:
        with suppress(OSError, EOFError):  # closing says so to the other side, which may be gone
            self._channel.close()
