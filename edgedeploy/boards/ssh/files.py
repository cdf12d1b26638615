"""A board's files: over SFTP, or by ``cat`` in a session where the server has no SFTP subsystem (as Dropbear)."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from edgedeploy.boards.drain import MOST_LINE_BYTES, MOST_OUTPUT_BYTES, PIECE_BYTES, Drain, flood
from edgedeploy.boards.ssh.channels import send
from edgedeploy.boards.ssh.quoting import command_line
from edgedeploy.errors import CommandFailed

if TYPE_CHECKING:
    import paramiko

ABSENT: Final = 44
"""Our scripts' exit status for a file that is not there."""

Moved = Callable[..., None]


MOST_GREETING_BYTES: Final = MOST_LINE_BYTES
"""Of what start-up files print before our mark."""

SFTP_PIECE_BYTES: Final = 32768
"""What a server has to give in one answer."""


class Bounded:
    """A file being written that takes no more than ``limit_bytes``; raises ``CommandFailed`` then."""

    def __init__(self, stream: IO[bytes], asked: str, limit_bytes: int | None) -> None:
        self._stream = stream
        self._asked = asked
        self._limit_bytes = limit_bytes
        self.written_bytes = 0

    def check(self, size_bytes: int) -> None:
        if self._limit_bytes is not None and size_bytes > self._limit_bytes:
            raise flood(self._asked, self._limit_bytes)

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        self.check(self.written_bytes)
        self._stream.write(data)


class Files(Protocol):
    """Remote files. A protocol because a server may have SFTP or not."""

    def put(self, stream: IO[bytes], remote: str, size_bytes: int, moved: Moved) -> None: ...
    def get(self, remote: str, stream: Bounded, moved: Moved) -> None: ...
    def read(self, remote: str, limit_bytes: int) -> bytes | None: ...
    def write(self, remote: str, data: bytes) -> None: ...


class SftpFiles:
    def __init__(self, client: paramiko.SFTPClient) -> None:
        self._client = client

    def put(self, stream: IO[bytes], remote: str, size_bytes: int, moved: Moved) -> None:
        self._client.putfo(stream, remote, file_size=size_bytes, callback=moved)

    def get(self, remote: str, stream: Bounded, moved: Moved) -> None:
        with self._client.open(remote, "rb") as source:
            size_bytes = source.stat().st_size or 0
            stream.check(size_bytes)  # before so many pieces are asked for
            source.prefetch(size_bytes)
            while piece := source.read(SFTP_PIECE_BYTES):
                stream.write(piece)
                moved(stream.written_bytes, size_bytes)
        if stream.written_bytes != size_bytes:
            raise OSError(f"{stream.written_bytes} bytes came of {size_bytes}")

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
        said, refused = Drain(channel.recv, channel.close), Drain(channel.recv_stderr, channel.close)
        sent = 0
        while piece := stream.read(PIECE_BYTES):
            send(channel, piece)
            sent += len(piece)
            moved(sent, size_bytes)
        channel.shutdown_write()
        said.wait()
        self._end(channel, f"write {remote}", refused)

    def get(self, remote: str, stream: Bounded, moved: Moved) -> None:
        for piece in self._marked(f"read {remote}", 'cat < "$1"', remote):
            stream.write(piece)
            moved(stream.written_bytes, stream.written_bytes)

    def read(self, remote: str, limit_bytes: int) -> bytes | None:
        script = f'[ -e "$1" ] || exit {ABSENT}; head -c {limit_bytes} < "$1"'
        taken = io.BytesIO()
        stream = Bounded(taken, f"read {remote}", limit_bytes)
        try:
            for piece in self._marked(f"read {remote}", script, remote):
                stream.write(piece)
        except FileNotFoundError:
            return None
        return taken.getvalue()

    def write(self, remote: str, data: bytes) -> None:
        channel = self._script(f"write {remote}", 'cat > "$1"', remote)
        said, refused = Drain(channel.recv, channel.close), Drain(channel.recv_stderr, channel.close)
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
        refused = Drain(channel.recv_stderr, channel.close)
        before, found = b"", False
        while piece := channel.recv(PIECE_BYTES):
            if not found:
                before += piece
                if len(before) > MOST_GREETING_BYTES:
                    raise flood(f"{self._server}: {what}", MOST_GREETING_BYTES)
                found = mark in before
                piece = before.partition(mark)[2] if found else b""
            if piece:
                yield piece
        self._end(channel, what, refused)
        if not found:
            raise CommandFailed(f"{self._server}: {what}", f"cat did not run: {before[:200]!r}", "See to its shell")

    def _end(self, channel: Any, what: str, refused: Drain) -> None:
        said = refused.wait().decode("utf-8", errors="replace").strip()[-300:]
        if refused.flooded:
            raise flood(f"{self._server}: {what}", MOST_OUTPUT_BYTES)
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
    except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError) as exc:
        # Also a shell that prints into it, and a program that ended before it was spoken to.
        channel.close()
        if isinstance(exc, TimeoutError) or not is_up():
            raise
    return CatFiles(session, server)
