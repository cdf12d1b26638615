"""What a user's own code raises, told with its file and line: a task's factory, its members, its network."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgedeploy.errors import EdgeDeployError, SpecError

_PACKAGE: Final = Path(__file__).resolve().parents[1]


@contextmanager
def their_code(task: object, asked: str) -> Iterator[None]:
    """An exception of a user's own task, or its way out of the program, becomes a ``SpecError`` with its file and line;
    tasks of ours keep theirs. ``task`` may be a function or a class of the user's."""
    try:
        yield
    except EdgeDeployError:
        raise
    except (Exception, SystemExit) as exc:
        module = getattr(task, "__module__", None) or type(task).__module__
        if str(module).partition(".")[0] == "edgedeploy":
            raise
        raise SpecError(
            asked, told(exc), "Correct that line; a study that was under way goes on with --resume"
        ) from exc


def told(exc: BaseException) -> str:
    """File and line, kind and first line of an exception."""
    text = next((line.strip() for line in str(exc).splitlines() if line.strip()), "")
    return f"{_place(exc)}: {type(exc).__name__}{f': {text[:300]}' if text else ''}"


def _place(exc: BaseException) -> str:
    """File and line of the innermost code that is neither ours nor of an installed package."""
    frames = traceback.extract_tb(exc.__traceback__)
    theirs = [f for f in frames if "site-packages" not in f.filename and not _is_ours(f.filename)] or frames
    return f"{theirs[-1].filename}, line {theirs[-1].lineno}"


def _is_ours(name: str) -> bool:
    return Path(name).is_relative_to(_PACKAGE)
