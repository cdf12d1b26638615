"""What flows through one SSH channel: a command's input and outputs, drained together."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from edgedeploy.boards.drain import MOST_LINE_BYTES, PIECE_BYTES, flood
from edgedeploy.errors import Unreachable

if TYPE_CHECKING:
    import paramiko


def send(channel: paramiko.Channel, data: bytes) -> None:
    """Send ``data`` to a command. A command may end without reading it; its exit status shows whether it failed."""
    try:
        for start in range(0, len(data), PIECE_BYTES):
            channel.sendall(data[start : start + PIECE_BYTES])
    except OSError:
        if not channel.get_transport().is_active():
            raise


class SshProcess:
    """A remote command that keeps running. Its standard error is not read, because no such command writes there."""

    def __init__(self, channel: paramiko.Channel, address: str) -> None:
        self._channel = channel
        self._address = address
        self._text = b""

    def read_line(self, timeout_s: float) -> str:
        """The next line without its end; empty when the process has closed its output. Raises ``Unreachable`` when it is not
        whole within ``timeout_s``, ``CommandFailed`` for one without an end."""
        asked = f"{self._address}: a line from a command"
        give_up_s = time.monotonic() + timeout_s
        try:
            while b"\n" not in self._text:
                if len(self._text) > MOST_LINE_BYTES:
                    raise flood(asked, MOST_LINE_BYTES)
                self._channel.settimeout(max(0.001, give_up_s - time.monotonic()))
                data = self._channel.recv(PIECE_BYTES)
                if not data:
                    break
                self._text += data
                if b"\n" not in data and time.monotonic() > give_up_s:  # a peer that drips
                    raise TimeoutError
        except (OSError, EOFError) as exc:
            raise Unreachable(asked, f"none within {timeout_s:g} s") from exc
        line, _, self._text = self._text.partition(b"\n")
        return line.decode("utf-8", errors="replace")

    def write(self, data: bytes) -> None:
        self._channel.settimeout(5.0)
        try:
            self._channel.sendall(data)
        except (OSError, EOFError) as exc:
            raise Unreachable(f"{self._address}: write to a command", str(exc) or type(exc).__name__) from exc

    def close(self) -> None:
        with suppress(OSError, EOFError):  # closing says so to the other side, which may be gone
            self._channel.close()
