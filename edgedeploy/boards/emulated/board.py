"""An emulated board: a separate SSH server on this host's loopback. Everything but the hardware is real.

Its times are this host's, so its provenance is ``emulated``. The server, its keys and its known_hosts file live in a
temporary folder while the board is in use. They are removed with this process, even if it is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions, RemoteSession
from edgedeploy.boards.emulated import embedded_server, guard
from edgedeploy.boards.emulated.hosting import held_process
from edgedeploy.boards.emulated.sshd_config import server_config
from edgedeploy.boards.ssh.config import SshTarget, user_name
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import CommandFailed, SpecError, TargetUnavailable, nearest
from edgedeploy.files import write_atomic
from edgedeploy.records.board import BoardInfo, Provenance

SERVERS: Final = ("auto", "embedded", "sshd")
START_TIMEOUT_S: Final = 60.0
"""A server starts within a second; beside a training on all cores the embedded one took more than 15 s."""

NOTE: Final = "emulated: SSH into this host; its times are this host's CPU, not any board's"


class EmulatedBoard:
    """A :class:`~edgedeploy.interfaces.board.Board`. Its server runs only while it is probed or in session."""

    def __init__(self, name: str, *, server: str = "auto", options: BoardOptions | None = None) -> None:
        """Raises ``SpecError`` for an unknown ``server``."""
        if server not in SERVERS:
            raise SpecError(f"board {name!r}: server = {server!r}", "there is no such server", nearest(server, SERVERS))
        self.name = name
        self.provenance: Provenance = "emulated"
        self._server = server
        self._options = options or BoardOptions(python=sys.executable)

    def probe(self) -> BoardInfo:
        with serve(self._server) as target:
            return self._board(target).probe()

    @contextlib.contextmanager
    def session(self) -> Iterator[RemoteSession]:
        with serve(self._server) as target, self._board(target).session() as session:
            yield session

    def _board(self, target: SshTarget) -> RemoteBoard:
        return RemoteBoard(
            self.name, lambda: SshTransport(target), provenance=self.provenance, options=self._options, notes=(NOTE,)
        )


@contextlib.contextmanager
def serve(kind: str = "auto") -> Iterator[SshTarget]:
    """A running server and how to reach it. Raises ``TargetUnavailable`` (not installed), ``CommandFailed`` (no start)."""
    with session_folder("edgedeploy-board-") as folder:
        use_sshd = kind == "sshd" or (kind == "auto" and sshd_works_here())
        with _sshd(folder) if use_sshd else _embedded(folder) as port:
            yield reach(folder, port, user_name())


@contextlib.contextmanager
def session_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder with fresh keys of a server and of its only client."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        (folder / "host_key.pub").write_text(make_key(folder / "host_key"), encoding="ascii")
        client_key = make_key(folder / "client_key")
        (folder / "authorized_keys").write_text(f"{client_key}\n", encoding="ascii")
        yield folder


def reach(folder: Path, port: int, user: str) -> SshTarget:
    """How to reach the server on ``port`` whose keys are in ``folder``."""
    host_key = (folder / "host_key.pub").read_text(encoding="ascii")
    # another thread may connect meanwhile, and must not find it empty
    write_atomic(folder / "known_hosts", f"[127.0.0.1]:{port} {host_key}\n".encode("ascii"))
    return SshTarget(
        host="127.0.0.1",
        port=port,
        user=user,
        identity=str(folder / "client_key"),
        known_hosts=str(folder / "known_hosts"),
        home=folder,
    )


def make_key(path: Path) -> str:
    """A fresh Ed25519 key: the private half to ``path``, the public half returned as OpenSSH writes it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    path.touch(mode=0o600)
    path.write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode("ascii")


def find_sshd() -> str | None:
    """The absolute path of sshd, which it must be started by; it is often outside an ordinary user's PATH."""
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")


def sshd_works_here() -> bool:
    """Whether sshd is installed and this user can log in through it: the user has an account with a shell."""
    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        return False
    return find_sshd() is not None and Path(shell).name not in ("nologin", "false")


@contextlib.contextmanager
def _sshd(folder: Path) -> Iterator[int]:
    program = find_sshd()
    if program is None:
        raise TargetUnavailable(
            'an emulated board with server = "sshd"',
            "sshd is not installed",
            'Install openssh-server, or "embedded"',
        )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's privilege separation folder
    config = folder / "sshd_config"
    with kept_port() as port:
        config.write_text(server_config(folder, port), encoding="utf-8")
        with guarded([program, "-D", "-e", "-f", str(config)], folder / "log") as process:
            _wait_for_port(process, port, folder / "log")
            yield port


@contextlib.contextmanager
def _embedded(folder: Path) -> Iterator[int]:
    require_embedded_server("an emulated board with the embedded server")
    argv, port_file = embedded_command(folder)
    with guarded(argv, folder / "log") as process:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while not port_file.exists():
            _check_started(process, give_up_s, folder / "log")
            time.sleep(0.01)
        yield port_in(port_file)


def require_embedded_server(asked: str) -> None:
    """Raises ``TargetUnavailable`` where the library of the embedded server is not installed."""
    if not embedded_server.can_run():
        raise TargetUnavailable(asked, "asyncssh is not installed", 'pip install "edgedeploy[study]"')


def embedded_command(folder: Path) -> tuple[list[str], Path]:
    """The command line of the embedded server, and the file in which it says its port when it serves."""
    port_file = folder / "port.json"
    return [sys.executable, str(Path(embedded_server.__file__)), str(folder), str(port_file)], port_file


def port_in(port_file: Path) -> int:
    return int(json.loads(port_file.read_text(encoding="ascii"))["port"])


@contextlib.contextmanager
def guarded(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server under a guard process that ends it when this process ends, even by SIGKILL: the guard's standard
    input is closed then."""
    command = [sys.executable, "-I", "-S", str(Path(guard.__file__)), *argv]
    with held_process(command, log) as process:
        yield process


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A free port of this host, which nobody else is given meanwhile; a server that reuses addresses, as sshd and QEMU do,
    can listen on it. A port that was free a moment before may be another's when a server comes to it."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield int(keeper.getsockname()[1])


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except OSError:
            _check_started(process, give_up_s, log)
            time.sleep(0.01)


def _check_started(process: subprocess.Popen[bytes], give_up_s: float, log: Path) -> None:
    if process.poll() is None and time.monotonic() < give_up_s:
        return
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
    raise CommandFailed(
        "start the emulated board's SSH server",
        said or f"it does not listen after {START_TIMEOUT_S:.0f} s",
        'Try again on a quieter machine, or the other server ("embedded" or "sshd")',
    )
