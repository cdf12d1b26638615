"""What a command prints, read to its end in a thread, and no more of it held than a command of ours can have to say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edgedeploy.errors import CommandFailed

PIECE_BYTES: Final = 256 * 1024
"""Larger writes to an SSH channel are split into windows and are fifty times slower."""

MOST_OUTPUT_BYTES: Final = 32 << 20
"""Of each of a command's two outputs. The longest that is asked for is trtexec's log of a build, some MB."""

MOST_LINE_BYTES: Final = 1 << 20
"""Of a line without an end: the longest that is asked for is a probe, some KB."""


class Drain:
    """Reads one stream to its end. ``receive`` gives up to so many bytes, none at the end; ``stop`` is called when the
    stream is longer than ``limit_bytes``, and has to make ``receive`` end."""

    def __init__(
        self, receive: Callable[[int], bytes], stop: Callable[[], object], limit_bytes: int = MOST_OUTPUT_BYTES
    ) -> None:
        self._receive = receive
        self._stop = stop
        self._left_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def flooded(self) -> bool:
        """Whether there was more than the limit."""
        return self._left_bytes < 0

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _read(self) -> None:
        with suppress(ValueError):  # it was closed while somebody else still had its other end
            while piece := self._receive(PIECE_BYTES):
                self._left_bytes -= len(piece)
                if self.flooded:
                    self._pieces.clear()
                    self._stop()
                    return
                self._pieces.append(piece)

    def wait(self, timeout_s: float | None = None) -> bytes:
        """All of it; nothing of a stream that was too long; what is there of one that is not at its end in time."""
        self._thread.join(timeout_s)
        return b"".join(self._pieces)


def check_flood(asked: str, *drains: Drain, limit_bytes: int = MOST_OUTPUT_BYTES) -> None:
    """Raises ``CommandFailed`` when one of them was cut."""
    if any(drain.flooded for drain in drains):
        raise flood(asked, limit_bytes)


def flood(asked: str, limit_bytes: int) -> CommandFailed:
    remedy = "Look at what runs there: no command of edgedeploy has so much to say"
    return CommandFailed(asked, f"the board sent more than {limit_bytes} bytes, so it was cut off", remedy)
