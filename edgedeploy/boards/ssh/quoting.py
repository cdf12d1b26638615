"""Command lines that every login shell takes apart alike: POSIX shells, csh and tcsh."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def command_line(argv: Sequence[str]) -> str:
    """The command line for the server's shell, with every argument quoted. ``exec`` replaces the shell, which would
    otherwise report the signal of a killed command as an ordinary exit status.

    csh looks for earlier commands behind ``!`` in quotes too. Nothing quotes a newline for it and other shells alike, so
    arguments have none.
    """
    return f"exec {' '.join(quoted(argument) for argument in argv)}"


def quoted(argument: str) -> str:
    return shlex.quote(argument).replace("!", "'\\!'")
