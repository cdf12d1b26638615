"""What happens in a run of a study: for whoever watches it, and as ``events.jsonl`` in its folder.

One JSON object a line. ``utc`` is the wall clock's time and ``at_s`` the seconds since the run began, by a clock that does
not jump. A run begins with a line of kind ``start`` (version, options, process) and ends with one of kind ``end`` (the
reason); a run without an ``end`` was killed, or the file could not be written. Runs that go on append to the file.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from edgedeploy._version import __version__
from edgedeploy.errors import DataError, EdgeDeployError, StorageError
from edgedeploy.files import append_line, parsed, read_plain
from edgedeploy.records.measurement import Failure
from edgedeploy.spec.public import without

LOG: Final = logging.getLogger(__name__)
EVENTS_FILE: Final = "events.jsonl"


@dataclass(frozen=True)
class Event:
    """Something an observer may show. ``done`` of ``total`` variants have an outcome; ``eta_s`` is None when unknown, and a
    lower bound where ``eta_at_least`` says so. ``failed`` is what gave no number, of a variant that failed."""

    kind: Literal["phase", "trial", "note"]
    text: str
    done: int
    total: int
    eta_s: float | None = None
    best: str | None = None
    eta_at_least: bool = False
    failed: Failure | None = None


Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Default observer; ignores events."""


def utc_text(seconds: float | None = None) -> str:
    """``2026-11-28T16:00:39.250Z``: now, or ``seconds`` since 1970."""
    at = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class EventLog:
    """Appends to a study's ``events.jsonl`` and is never the reason that a study fails: where the file cannot be written, a
    warning says so once, and later events try again. ``private`` are words that are left out of every text. Use it as a
    context manager, so that the end of the run is written too. Threads may share it."""

    def __init__(self, folder: Path, *, private: Sequence[str] = ()) -> None:
        self._path = folder / EVENTS_FILE
        self._private = tuple(private)
        self._started_s = time.monotonic()
        self._warned = False
        self._reason: dict[str, Any] | None = None

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, KeyboardInterrupt):
            self._write("end", "interrupted", reason="interrupted")
        elif exc is not None:
            said = f"{exc.asked}: {exc.found}" if isinstance(exc, EdgeDeployError) else str(exc)
            self._write("end", f"{type(exc).__name__}: {said}", reason="error")
        elif self._reason is not None:
            self._write("end", **self._reason)

    def start(self, study: str, options: Mapping[str, Any]) -> None:
        facts = {"version": __version__, "pid": os.getpid(), "options": dict(options)}
        self._write("start", f"{study}: edgedeploy {__version__}", **facts)

    def finish(self, reason: str, done: int, total: int) -> None:
        """Say how the run ended; it is written when the context is left."""
        self._reason = {"text": f"ended because of: {reason}", "reason": reason, "done": done, "total": total}

    def __call__(self, event: Event) -> None:
        """The event, as an observer hears of it."""
        facts = {"done": event.done, "total": event.total, "eta_s": event.eta_s, "best": event.best}
        at_least = {"eta_at_least": True} if event.eta_at_least else {}
        failed = {"failed": event.failed.as_json()} if event.failed else {}
        self._write(event.kind, event.text, **facts, **at_least, **failed)

    def _write(self, kind: str, text: str, **facts: Any) -> None:
        text, facts = self._without_private(text), self._without_private(facts)
        LOG.debug("%s: %s", kind, text)
        at_s = round(time.monotonic() - self._started_s, 3)
        line = json.dumps({"utc": utc_text(), "at_s": at_s, "kind": kind, "text": text, **facts})
        try:
            append_line(self._path, line.encode())
        except (OSError, StorageError) as exc:
            if not self._warned:
                self._warned = True
                LOG.warning("%s cannot be written (%s): the study goes on without its events", self._path, exc)

    def _without_private(self, value: Any) -> Any:
        """``value``, a text or what holds texts as JSON does."""
        if isinstance(value, str):
            return without(value, self._private)
        if isinstance(value, Mapping):
            return {key: self._without_private(item) for key, item in value.items()}
        return [self._without_private(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All events of a study's folder, oldest first. Lines that a kill or a full disk tore are left out. Raises
    ``DataError`` for a file that cannot be read."""
    path = folder / EVENTS_FILE
    try:
        lines = read_plain(path).splitlines()
    except FileNotFoundError:
        return []
    except OSError as exc:
        found = f"it cannot be read ({exc.strerror or exc})"
        raise DataError(f"study file {path}", found, "Move it away: it is no evidence") from None
    return [event for line in lines if (event := _parsed(line)) is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        return parsed(line)
    except (ValueError, RecursionError):
        return None
