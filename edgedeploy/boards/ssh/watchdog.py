"""A deadline in a separate thread, for calls that would block for ever on a frozen peer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgedeploy.errors import Unreachable


class Watchdog:
    """Cuts a connection when an operation on it takes too long, so that whatever call is blocked returns.

    SSH libraries time out some waits and not others; a timer that closes the socket covers them all.
    """

    def __init__(self, cut: Callable[[], None], asked: str) -> None:
        self._cut = cut
        self._asked = asked

    @contextmanager
    def limit(self, what: str, timeout_s: float, stall_s: float | None = None) -> Iterator[Callable[..., None]]:
        """Run the block for at most ``timeout_s``, and for at most ``stall_s`` between two calls of the yielded
        function.

        Raises ``Unreachable`` after either limit, whatever the block itself raised. So a long transfer may continue
        while it makes progress, and a peer that freezes in the middle of it is still detected.
        """
        ended = threading.Event()
        too_late: list[Unreachable] = []
        started_s = time.monotonic()
        moved_s = [started_s]

        def watch() -> None:
            while True:
                left_s = started_s + timeout_s - time.monotonic()
                moves_s = left_s if stall_s is None else moved_s[0] + stall_s - time.monotonic()
                if min(left_s, moves_s) <= 0:
                    too_late.append(self._too_late(what, timeout_s if left_s <= 0 else stall_s or timeout_s))
                    self._cut()
                    return
                if ended.wait(min(left_s, moves_s)):
                    return

        def progress(*_: object) -> None:
            moved_s[0] = time.monotonic()

        threading.Thread(target=watch, name=f"deadline of {what}", daemon=True).start()
        try:
            yield progress
        except Exception as exc:
            if too_late:
                raise too_late[0] from exc
            raise
        finally:
            ended.set()
        if too_late:
            raise too_late[0]

    def _too_late(self, what: str, timeout_s: float) -> Unreachable:
        return Unreachable(
            f"{self._asked}: {what}",
            f"no answer within {timeout_s:g} s, so the connection was closed",
            "Check that the board is up and its network works",
        )
