"""How much the commands say on standard error: ``--quiet``, as usual, or ``--verbose``, and the package's log there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from edgedeploy.study.events import LOG as EVENTS_LOG
from edgedeploy.study.events import utc_text

err = Console(stderr=True, soft_wrap=True)
PACKAGE_LOG: Final = logging.getLogger("edgedeploy")
FLAGS: Final = ("--verbose", "-v", "--quiet", "-q")


@dataclass
class Loudness:
    """What was asked for at the command line of this process. Neither is the usual."""

    verbose: bool = False
    quiet: bool = False


loudness: Final = Loudness()


class FlagsAnywhere(TyperGroup):
    """Takes :data:`FLAGS` before and after the name of the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        flags = [word for word in args[:end] if word in FLAGS]
        return super().parse_args(ctx, [*flags, *(word for word in args[:end] if word not in FLAGS), *args[end:]])


def say(text: str, *, stamped: bool = False) -> None:
    """A line for whoever watches: nothing when quiet. ``stamped`` lines have the time where they get into a log."""
    if not loudness.quiet:
        print_line(text, stamped=stamped)


def print_line(text: str, *, stamped: bool = False, at_s: float | None = None) -> None:
    """A line on standard error, with the time (``at_s`` since 1970, or now) where nobody sees it pass."""
    stamp = f"{utc_text(at_s)} " if stamped and (loudness.verbose or not err.is_terminal) else ""
    err.print(escape(stamp + text), highlight=False)


class _OnStandardError(logging.Handler):
    """The package's log as lines: above the progress bar where there is one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Without a study's events, which are shown by themselves."""
        return record.levelno > logging.DEBUG or record.name != EVENTS_LOG.name

    def emit(self, record: logging.LogRecord) -> None:
        try:
            name = f" {record.name}" if loudness.verbose else ""
            text = f"{record.levelname.lower()}{name}: {self.format(record)}"
            print_line(text, stamped=True, at_s=record.created)
        except Exception:
            self.handleError(record)


@contextmanager
def package_log_shown() -> Iterator[None]:
    """The package's log on standard error: warnings, and everything when verbose. Not on the root logger's handlers too,
    which toolchains set up as they please."""
    handler, before = _OnStandardError(), (PACKAGE_LOG.level, PACKAGE_LOG.propagate)
    PACKAGE_LOG.addHandler(handler)
    PACKAGE_LOG.setLevel(logging.DEBUG if loudness.verbose else logging.WARNING)
    PACKAGE_LOG.propagate = False
    try:
        yield
    finally:
        PACKAGE_LOG.removeHandler(handler)
        PACKAGE_LOG.setLevel(before[0])
        PACKAGE_LOG.propagate = before[1]
