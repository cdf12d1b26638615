"""A deadline from outside, for calls that a frozen peer would keep for ever."""

from __future__ import annotations

import threading
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
    def limit(self, what: str, timeout_s: float) -> Iterator[None]:
        """Run the block for at most ``timeout_s``; raises ``Unreachable`` past it, whatever the block itself raised."""
        fired = threading.Event()

        def end() -> None:
            fired.set()
            self._cut()

        timer = threading.Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as exc:
            if fired.is_set():
                raise self._too_late(what, timeout_s) from exc
            raise
        finally:
            timer.cancel()
        if fired.is_set():
            raise self._too_late(what, timeout_s)

    def _too_late(self, what: str, timeout_s: float) -> Unreachable:
        return Unreachable(
            f"{self._asked}: {what}",
            f"no answer within {timeout_s:g} s, so the connection was closed",
            "Check that the board is up and its network works",
        )
