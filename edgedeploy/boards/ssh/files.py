"""A board's files: over SFTP, or by ``cat`` in a session where the server has no SFTP subsystem (as Dropbear)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from edgedeploy.boards.ssh.channels import PIECE_BYTES, Drain, send
from edgedeploy.boards.ssh.quoting import command_line
from edgedeploy.errors import CommandFailed

if TYPE_CHECKING:
    import paramiko

ABSENT: Final = 44
"""Our scripts' exit status for a file that is not there."""

Moved = Callable[..., None]


class Files(Protocol):
    """Remote files. A protocol because a server may have SFTP or not."""

    def put(self, stream: IO[bytes], remote: str, size_bytes: int, moved: Moved) -> None: ...
    def get(self, remote: str, stream: IO[bytes], moved: Moved) -> None: ...
    def read(self, remote: str, limit_bytes: int) -> bytes | None: ...
    def write(self, remote: str, data: bytes) -> None: ...


class SftpFiles:
    def __init__(self, client: paramiko.SFTPClient) -> None:
        self._client = client

    def put(self, stream: IO[bytes], remote: str, size_bytes: int, moved: Moved) -> None:
        self._client.putfo(stream, remote, file_size=size_bytes, callback=moved)

    def get(self, remote: str, stream: IO[bytes], moved: Moved) -> None:
        self._client.getfo(remote, stream, callback=moved)

    def read(self, remote: str, limit_bytes: int) -> bytes | None:
        try:
            with self._client.open(remote, "rb") as stream:
                return stream.read(limit_bytes)
        except FileNotFoundError:
            return None

    def write(self, remote: str, data: bytes) -> None:
        with self._client.open(remote, "wb") as stream:
            stream.set_pipelined(True)
            stream.write(data)


class CatFiles:
    """Each transfer is a session of its own. A mark goes before what is read, as start-up files of the shell may print."""

    def __init__(self, session: Callable[[], paramiko.Channel], server: str) -> None:
        self._session = session
        self._server = server

    def put(self, stream: IO[bytes], remote: str, size_bytes: int, moved: Moved) -> None:
        channel = self._script(f"write {remote}", 'cat > "$1"', remote)
        said, refused = Drain(channel.recv), Drain(channel.recv_stderr)
        sent = 0
        while piece := stream.read(PIECE_BYTES):
            send(channel, piece)
            sent += len(piece)
            moved(sent, size_bytes)
        channel.shutdown_write()
        said.wait()
        self._end(channel, f"write {remote}", refused)

    def get(self, remote: str, stream: IO[bytes], moved: Moved) -> None:
        received = 0
        for piece in self._marked(f"read {remote}", 'cat < "$1"', remote):
            stream.write(piece)
            received += len(piece)
            moved(received, received)

    def read(self, remote: str, limit_bytes: int) -> bytes | None:
        script = f'[ -e "$1" ] || exit {ABSENT}; head -c {limit_bytes} < "$1"'
        try:
            return b"".join(self._marked(f"read {remote}", script, remote))
        except FileNotFoundError:
            return None

    def write(self, remote: str, data: bytes) -> None:
        channel = self._script(f"write {remote}", 'cat > "$1"', remote)
        said, refused = Drain(channel.recv), Drain(channel.recv_stderr)
        send(channel, data)
        channel.shutdown_write()
        said.wait()
        self._end(channel, f"write {remote}", refused)

    def _script(self, what: str, script: str, remote: str) -> Any:
        channel = self._session()
        channel.exec_command(command_line(["sh", "-c", script, "sh", remote]))
        return channel

    def _marked(self, what: str, script: str, remote: str) -> Iterator[bytes]:
        """The output behind the mark, in pieces. Raises ``FileNotFoundError``, ``CommandFailed``."""
        mark = f"edgedeploy-{uuid.uuid4().hex}\n".encode()
        channel = self._script(what, f"echo {mark.decode().strip()}; {script}", remote)
        channel.shutdown_write()
        refused = Drain(channel.recv_stderr)
        before, found = b"", False
        while piece := channel.recv(PIECE_BYTES):
            if not found:
                before += piece
                found = mark in before
                piece = before.partition(mark)[2] if found else b""
            if piece:
                yield piece
        self._end(channel, what, refused)

    def _end(self, channel: Any, what: str, refused: Drain) -> None:
        said = refused.wait().decode("utf-8", errors="replace").strip()[-300:]
        status = channel.recv_exit_status()
        channel.close()
        if status == ABSENT:
            raise FileNotFoundError(what)
        if status < 0:
            raise EOFError("the command ended without an exit status")
        if status != 0:
            raise CommandFailed(f"{self._server}: {what}", f"cat ended with status {status}: {said}", "See to its disk")


def open_files(session: Callable[[], paramiko.Channel], server: str, is_up: Callable[[], bool]) -> Files:
    """SFTP where the server has it, else ``cat``. Raises ``SSHException`` or ``EOFError`` when the connection is lost."""
    import paramiko

    channel = session()
    try:
        channel.invoke_subsystem("sftp")
        return SftpFiles(paramiko.SFTPClient(channel))
    except (paramiko.SSHException, paramiko.SFTPError, EOFError):  # or a shell that prints into it
        channel.close()
        if not is_up():
            raise
    return CatFiles(session, server)
