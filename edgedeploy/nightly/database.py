"""The database of a lab's journal: a SQLite file or a PostgreSQL server, which may be locked, damaged or gone."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import postgresql, sqlite

from edgedeploy.errors import StorageError
from edgedeploy.search.history import CONNECT_WAIT_S, PAUSES_S, Server, first_line, sqlite_url

VERSION: Final = 1
_LOCK_WAIT_S: Final = 10.0
_POOL_WAIT_S: Final = 120.0
CONNECTIONS: Final = 10
"""To a server, kept open and shared by all boards' threads: a new one for each step costs the server a process."""

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAILURES: Final = (sa_exc.SQLAlchemyError, sqlite3.Error)
Answer = TypeVar("Answer")

TABLES: Final = sa.MetaData()
META = sa.Table("edgedeploy_nightly", TABLES, sa.Column("version", sa.Integer, primary_key=True))
NIGHTS = sa.Table(
    "edgedeploy_nights",
    TABLES,
    sa.Column("lab", sa.String(80), primary_key=True),
    sa.Column("night", sa.String(10), primary_key=True),
    sa.Column("started_s", sa.Float, nullable=False),
    sa.Column("ended_s", sa.Float),
    sa.Column("budget_s", sa.Float, nullable=False),
    sa.Column("holder", sa.Text, nullable=False, default=""),
    sa.Column("heard_s", sa.Float, nullable=False, default=0.0),
)
JOBS = sa.Table(
    "edgedeploy_jobs",
    TABLES,
    sa.Column("lab", sa.String(80), primary_key=True),
    sa.Column("night", sa.String(10), primary_key=True),
    sa.Column("entry", sa.String(80), primary_key=True),
    sa.Column("board", sa.String(80), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("holder", sa.Text, nullable=False, default=""),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("spent_s", sa.Float),
    sa.Column("session", sa.Text),
    sa.Index("edgedeploy_jobs_of_pair", "lab", "entry", "board", "state", "night"),
)
VERDICTS = sa.Table(
    "edgedeploy_verdicts",
    TABLES,
    sa.Column("lab", sa.String(80), primary_key=True),
    sa.Column("entry", sa.String(80), primary_key=True),
    sa.Column("board", sa.String(80), primary_key=True),
    sa.Column("night", sa.String(10), primary_key=True),
    sa.Column("verdict", sa.Text, nullable=False),
)
ACCEPTED = sa.Table(
    "edgedeploy_accepted",
    TABLES,
    sa.Column("lab", sa.String(80), primary_key=True),
    sa.Column("entry", sa.String(80), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("was", sa.Text, nullable=False),
    sa.Column("now", sa.Text, nullable=False),
)


class Database:
    """Steps in transactions of their own. Threads may share it. ``read_only``: whatever is asked, nothing is written."""

    def __init__(self, place: Path | Server, *, read_only: bool = False) -> None:
        self.place = place
        self.what = f"the journal of nights in {place}"
        self._read_only = read_only
        self._engine = _engine(place, read_only)

    def open(self) -> None:
        """Makes the tables where there are none. Raises ``StorageError`` for a database of a newer release, one that is
        damaged, or one that does not answer."""

        def prepare(connection: sa.Connection) -> int:
            if not self._read_only:
                TABLES.create_all(connection)
            found = connection.execute(sa.select(sa.func.max(META.c.version))).scalar()
            if found is None and not self._read_only:
                connection.execute(META.insert().values(version=VERSION))
            return int(found or VERSION)

        version = self.run(prepare)
        if version > VERSION:
            found = f"its version is {version}, and this release of edgedeploy knows {VERSION}"
            raise StorageError(self.what, found, "Update edgedeploy on this host: nothing was changed")

    def close(self) -> None:
        self._engine.dispose()

    def run(self, step: Callable[[sa.Connection], Answer]) -> Answer:
        """``step`` in a transaction, again after pauses while the database refuses. Raises ``StorageError`` after the last
        pause, and SQLAlchemy's ``IntegrityError`` for a row that is there already."""
        for pause_s in (*PAUSES_S, None):
            try:
                with self._engine.begin() as connection:
                    return step(connection)
            except sa_exc.IntegrityError:
                raise
            except _FAILURES as exc:
                damaged = getattr(_innermost(exc), "sqlite_errorcode", 0) & 0xFF in _DAMAGED  # its low byte: the kind
                if pause_s is None or damaged:
                    raise StorageError(
                        self.what, first_line(_innermost(exc)), _remedy(self.place, damaged, self._read_only)
                    ) from exc
                time.sleep(pause_s)
        raise AssertionError("the last pause is None")


def _engine(place: Path | Server, read_only: bool) -> sa.Engine:
    if isinstance(place, Server):
        return sa.create_engine(
            place.url,
            connect_args={"connect_timeout": CONNECT_WAIT_S},
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=_POOL_WAIT_S,
            pool_pre_ping=True,
        )
    url = f"sqlite:///file:{quote(os.fsencode(place))}?mode=ro&uri=true" if read_only else sqlite_url(place)
    engine = sa.create_engine(url, connect_args={"timeout": _LOCK_WAIT_S})

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not when sqlite3 thinks so

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def clock_s(connection: sa.Connection) -> float:
    """Seconds since 1970 by the database's clock, which all hosts share."""
    own = connection.dialect.name == "sqlite"
    text = "(julianday('now') - 2440587.5) * 86400.0" if own else "extract(epoch from clock_timestamp())"
    return float(connection.execute(sa.text(f"SELECT {text}")).scalar_one())


def insert_new(connection: sa.Connection, table: sa.Table, **values: Any) -> None:
    """Leaves a row that is there as it is."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(table).values(**values).on_conflict_do_nothing())


def _innermost(exc: BaseException) -> BaseException:
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return exc


def _remedy(place: Path | Server, damaged: bool, read_only: bool) -> str:
    if isinstance(place, Server):
        return "See to the server, then run it again: it resumes"
    if damaged:
        return "Put a copy of it back, or move it away: the nights' JSON files stay, histories begin anew"
    if read_only:
        return "Run the night itself: it puts right what a kill in the middle of writing left"
    return f"Free space at {place.parent}, or end what else uses it, then run it again: it resumes"
