"""Optuna's database, a SQLite file or a PostgreSQL server, which may be locked for a while, damaged or gone.

It holds the history of proposals and no evidence. If it is lost, the history is written again from the evidence store
(:meth:`edgedeploy.search.loop.Search`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import optuna
import sqlalchemy
import sqlalchemy.exc

from edgedeploy.errors import SpecError, StorageError, TargetUnavailable
from edgedeploy.records.metrics import Direction

_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9/._ @=,:~-]")

STUDY_NAME: Final = "edgedeploy"
LOCK_WAIT_S: Final = 2.0
"""How long SQLite itself waits for a lock at each attempt."""

PLAIN_OPTIONS: Final = frozenset(
    (
        *("host", "port", "connect_timeout", "tcp_user_timeout", "application_name", "target_session_attrs"),
        *("sslmode", "sslnegotiation", "sslrootcert", "gssencmode", "channel_binding"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    )
)
"""Options of a URL that cannot hold a password: all others are refused, because the folder and messages have the URL."""

CONNECT_WAIT_S: Final = 5
"""How long a server may take to accept a connection at each attempt."""

PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Pauses between the attempts at one step: the study stops after about 20 s in all, keeping what it has measured."""

SERVER_PAUSES_S: Final = (*PAUSES_S, 8.0, 15.0, 30.0)
"""As ``PAUSES_S``, for a server: it may have to restart and recover."""

Answer = TypeVar("Answer")
_FAILURES = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error)


@dataclass(frozen=True)
class Server:
    """A PostgreSQL database and the study's name in it, which no other study has. Of the URL, messages show the host
    alone: what else was typed into it may be private."""

    url: str = field(repr=False)
    study: str

    def __str__(self) -> str:
        host = sqlalchemy.make_url(self.url).host
        return f"PostgreSQL{f' on {host}' if host else ''} (study {self.study!r})"


def server_at(url: str, study: str) -> Server:
    """Raises ``SpecError`` for a URL that is not PostgreSQL's or has a password in it; ``TargetUnavailable`` when psycopg
    is not installed."""
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # whose own words may quote the password
        found = "Could not parse it as the URL of a database"
        raise SpecError("storage", found, "For example postgresql+psycopg://lab@db.lab/optuna") from None
    if parsed.drivername != "postgresql+psycopg":
        found = f"its driver is {parsed.drivername!r}"
        raise SpecError("storage", found, "Give postgresql+psycopg://..., or leave it out for a SQLite file")
    remedy = "Put it into ~/.pgpass or the environment (PGPASSWORD, PGPASSFILE, PGSERVICE)"
    names = {name.lower() for name in parsed.query}
    if parsed.password is not None or ":" in (parsed.username or "") or any("password" in name for name in names):
        raise SpecError("storage", "there is a password in it", remedy)
    if any(mark in (parsed.database or "") for mark in ("=", "://")):  # libpq would read it as a whole address
        raise SpecError(
            "storage", "the name of its database is an address of its own, which may have a password", remedy
        )
    other = sorted(names - PLAIN_OPTIONS)
    if other:
        known = ", ".join(sorted(PLAIN_OPTIONS))
        found = f"its option {other[0][:40]!r} may hold a password, or name a file that does; plain ones are {known}"
        raise SpecError("storage", found, remedy)
    if importlib.util.find_spec("psycopg") is None:
        raise TargetUnavailable("storage on PostgreSQL", "psycopg is not installed", "pip install 'edgedeploy[lab]'")
    return Server(url, study)


def open_history(place: Path | Server, directions: Sequence[Direction], objectives: Sequence[str] = ()) -> optuna.Study:
    """The study in ``place``, made when there is none, with the names of its ``objectives`` for Optuna's plots. A file
    that is no database, or one of another version of Optuna, is moved aside, never deleted: a new one is filled from the
    evidence.

    Raises ``StorageError`` when the database stays locked, does not answer or cannot be written.
    """
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        if _is_damaged(place):
            _set_aside(place, "damaged")

    def open_it() -> optuna.Study:
        try:
            return create()
        except RuntimeError as exc:  # Optuna's, of tables of another version
            if not isinstance(place, Path):
                found = f"its tables are of another version of Optuna ({first_line(exc)})"
                remedy = "Give another database, or run `optuna storage upgrade --storage URL` there"
                raise StorageError(f"the history of proposals in {place}", found, remedy) from None
            _set_aside(place, "other-version")
            return create()

    def create() -> optuna.Study:
        study = optuna.create_study(
            study_name=STUDY_NAME if isinstance(place, Path) else place.study,
            storage=_storage(place),
            directions=list(directions),
            load_if_exists=True,
        )
        if objectives and study.metric_names != list(objectives):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(objectives))
        return study

    return patiently(open_it, place)


def _set_aside(path: Path, why: str) -> None:
    """Rename the database, and with it what SQLite keeps beside it."""
    stamp = f"{why}-{time.time_ns()}"
    for suffix in ("", "-wal", "-shm", "-journal"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(path.with_name(f"{path.name}.{stamp}{suffix}"))


def _storage(place: Path | Server) -> optuna.storages.RDBStorage:
    if isinstance(place, Path):
        options: dict[str, object] = {"connect_args": {"timeout": LOCK_WAIT_S}}
        return optuna.storages.RDBStorage(sqlite_url(place), engine_kwargs=options)
    options = {"connect_args": {"connect_timeout": CONNECT_WAIT_S}, "pool_pre_ping": True}
    return optuna.storages.RDBStorage(place.url, engine_kwargs=options)


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file, for Optuna and its dashboard. In a plain one, ``?`` begins options and ``{`` a placeholder
    of Optuna's, so such a path is percent-encoded: as SQLite's own URI where SQLAlchemy does not decode it."""
    if not _NOT_PLAIN.search(str(path)):
        return f"sqlite:///{path}"
    quoted = quote(os.fsencode(path))
    if sqlalchemy.make_url(f"sqlite:///{quoted}").database == str(path):
        return f"sqlite:///{quoted}"
    return f"sqlite:///file:{quoted}?uri=true"


def _is_damaged(path: Path) -> bool:
    """Whether SQLite reports damage; a locked file is not damaged."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_WAIT_S)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.OperationalError:
        return False
    except sqlite3.DatabaseError:
        return True


def patiently(step: Callable[[], Answer], place: Path | Server) -> Answer:
    """Run ``step``, and repeat it after pauses while the database refuses. Raises ``StorageError`` after the last
    pause."""
    for pause_s in (*(PAUSES_S if isinstance(place, Path) else SERVER_PAUSES_S), None):
        try:
            return step()
        except _FAILURES as exc:
            if pause_s is None:
                reason = _reason(exc)
                raise StorageError(f"the history of proposals in {place}", reason, _remedy(reason, place)) from exc
            time.sleep(pause_s)
    raise AssertionError("the last pause is None")


def _remedy(reason: str, place: Path | Server) -> str:
    if not isinstance(place, Path):
        first = "See to the server"
    elif "full" in reason or "disk I/O" in reason:
        first = f"Free space at {place.parent}"
    elif "readonly" in reason:
        first = f"Make {place} writable"
    else:
        first = "End what else uses it, or remove the file"
    return f"{first}; then --resume: everything measured is kept"


def _reason(exc: BaseException) -> str:
    """The innermost cause: Optuna's own message only says that there was an exception."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return first_line(exc)


def first_line(exc: BaseException) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
