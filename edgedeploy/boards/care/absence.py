"""Boards that do not answer: how long they are waited for, and what is said meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from edgedeploy.errors import LoginRefused, Unreachable

T = TypeVar("T")

SAY_S: Final = 30.0
"""After so long it is said again that a board is waited for."""

PAUSE_S: Final = 2.0
"""Between two attempts to reach it."""


class Absence:
    """How long one board is away. ``limit_s`` is the most that it is waited for; ``tell`` gets a line at the beginning, one
    every :data:`SAY_S`, and one when it is back."""

    def __init__(self, name: str, limit_s: float, tell: Callable[[str], None]) -> None:
        self._name = name
        self._limit_s = limit_s
        self._tell = tell
        self._since_s: float | None = None
        self._said_s = 0.0

    def goes_on(self, exc: Unreachable) -> bool:
        """The board did not answer: whether to try again. A board that answers and lets nobody in is not away."""
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s, self._said_s = now_s, -SAY_S + now_s
        left_s = self._since_s + self._limit_s - now_s
        if isinstance(exc, LoginRefused) or left_s <= 0:
            return False
        if now_s - self._said_s >= SAY_S:
            self._said_s = now_s
            self._tell(f"board {self._name}: {exc.asked}: {exc.found}; waiting {left_s:.0f} s more for it (`away`)")
        return True

    def given_up(self, exc: Unreachable) -> Unreachable:
        """``exc``, with how long the board was waited for."""
        if isinstance(exc, LoginRefused) or self._since_s is None or self._limit_s <= 0:
            return exc
        found = f"{exc.found} (waited {time.monotonic() - self._since_s:.0f} s for it)"
        return Unreachable(
            f"board {self._name!r}: {exc.asked}",
            found,
            f"{exc.remedy}. Or allow it more time: `away` in the board's table",
        )

    def over(self) -> bool:
        """The board answered: whether it was away before."""
        since_s, self._since_s = self._since_s, None
        if since_s is not None:
            self._tell(f"board {self._name}: it is back after {time.monotonic() - since_s:.0f} s")
        return since_s is not None


def reached(ask: Callable[[], T], absence: Absence, pause: Callable[[float], object] = time.sleep) -> tuple[T, bool]:
    """The answer of ``ask``, asked again while its board is away, and whether the board was away.

    Raises what ``ask`` raises, and ``Unreachable`` when the board has been away for its limit.
    """
    while True:
        try:
            answer = ask()
        except Unreachable as exc:
            if not absence.goes_on(exc):
                raise absence.given_up(exc) from exc
            pause(PAUSE_S)
        else:
            return answer, absence.over()
