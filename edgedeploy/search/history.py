"""Optuna's SQLite file as something that may be locked for a while, damaged, or gone.

It holds the history of proposals and no evidence, so the worst that its loss can cost is the optimiser's memory, and that
is written again from the evidence store (:meth:`edgedeploy.search.study.Search`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

import optuna
import sqlalchemy.exc

from edgedeploy.errors import StorageError
from edgedeploy.measurement import Direction

STUDY_NAME: Final = "edgedeploy"
LOCK_WAIT_S: Final = 2.0
"""How long SQLite itself waits for a lock, each time."""

PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Between the attempts at one step: in all about 20 s before the study stops with what it has."""

Answer = TypeVar("Answer")
_FAILURES = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error)


def open_history(path: Path, directions: Sequence[Direction]) -> optuna.Study:
    """The study in ``path``, made when there is none. A file that is no database is moved aside, never deleted.

    Raises ``StorageError`` when the file stays locked or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_damaged(path):
        path.replace(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))

    def open_it() -> optuna.Study:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": LOCK_WAIT_S}}
        )
        return optuna.create_study(
            study_name=STUDY_NAME, storage=storage, directions=list(directions), load_if_exists=True
        )

    return patiently(open_it, path)


def _is_damaged(path: Path) -> bool:
    """Whether SQLite itself says so; a lock is no damage."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.OperationalError:
        return False
    except sqlite3.DatabaseError:
        return True


def patiently(step: Callable[[], Answer], path: Path) -> Answer:
    """``step``, and again after a pause while the database refuses. Raises ``StorageError`` in the end."""
    for pause_s in (*PAUSES_S, None):
        try:
            return step()
        except _FAILURES as exc:
            if pause_s is None:
                raise StorageError(
                    f"the history of proposals in {path}",
                    _reason(exc),
                    "End what else uses it, or remove the file; then --resume: everything measured is kept",
                ) from exc
            time.sleep(pause_s)
    raise AssertionError("the last pause is None")


def _reason(exc: BaseException) -> str:
    """The innermost cause: Optuna's own message only says that there was an exception."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
