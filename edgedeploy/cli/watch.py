"""Shows a running study: a bar on a terminal, lines with the time in a log; every event when verbose, nothing when quiet."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edgedeploy.cli.loudness import err, loudness, say

LOG_EVERY_S = 30.0
"""Where there is no terminal, a line about the phase at hand appears at most so often."""


class Watch:
    """Shows a running study: a bar with ETA and the best so far on a terminal, plain lines anywhere else. ``what`` is what
    is counted."""

    def __init__(self, what: str = "variants") -> None:
        self._progress = Progress(
            TextColumn(f"[bold]{{task.fields[count]}}[/] {what}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            TextColumn("{task.description}"),
            console=err,
            transient=True,
        )
        self._quiet_until_s = 0.0
        self._interrupted = False
        self._bar = self._progress.add_task("", total=None, count="?", eta="?", start=True)

    def __enter__(self) -> Watch:
        self._handler = signal.getsignal(signal.SIGINT) or signal.SIG_DFL
        if self._handler is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)
        if self._has_bar():
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._handler)
        if self._has_bar():  # stopping what was never started still prints an empty line
            self._progress.stop()
        if self._interrupted and isinstance(exc[1], Exception):
            raise KeyboardInterrupt from exc[1]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C. An exception that is raised inside a finaliser is swallowed by Python, and a library that it falls into
        may turn it into an error of its own (an extension module's import does), so it is remembered as well and raised
        again at the next event or at the end."""
        self._interrupted = True
        raise KeyboardInterrupt

    def __call__(self, event: Any) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        eta = _eta_text(event.eta_s, event.eta_at_least)
        if event.kind != "phase" or loudness.verbose or self._is_due():
            line = f"[{event.done}/{event.total}, ETA {eta}] {event.text}"
            if event.best:
                line += f"  | best so far: {event.best}"
            say(line, stamped=True)
        self._progress.update(
            self._bar,
            total=event.total,
            completed=event.done,
            count=f"{event.done}/{event.total}",
            eta=eta,
            description=escape(event.text[:90]),
            refresh=event.kind != "phase",  # an outcome is drawn at once, also the last one
        )

    @staticmethod
    def _has_bar() -> bool:
        return err.is_terminal and not loudness.quiet

    def _is_due(self) -> bool:
        """True at most every 30 s when stderr is not a terminal: a night's log tells where it stands."""
        now_s = time.monotonic()
        if err.is_terminal or now_s < self._quiet_until_s:
            return False
        self._quiet_until_s = now_s + LOG_EVERY_S
        return True


def _eta_text(eta_s: float | None, at_least: bool) -> str:
    """``4:30``, ``4:30+`` for a lower bound, and ``?`` for one that bounds nothing."""
    if eta_s is None or (at_least and round(eta_s) <= 0):
        return "?"
    return duration(eta_s) + "+" * at_least


def duration(seconds: float) -> str:
    """``1:05:09`` or ``4:30``."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
