"""What a night is made of, each replaceable by itself: how an entry is prepared, measured, judged, and told of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.interfaces.board import Board
from edgedeploy.nightly.rebuild import prepared
from edgedeploy.nightly.session import measure_session
from edgedeploy.nightly.subject import Subject
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.night import Session
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.lab import EntryTable
from edgedeploy.study.preflight import open_and_probe
from edgedeploy.study.runner import Runner, runner_on
from edgedeploy.targets.registry import sessions_of


def open_board(table: BoardTable) -> tuple[Board, BoardInfo]:
    """A board that answers and is not set aside, with every runtime that there is here. Raises ``BoardError``."""
    return open_and_probe(table, sessions_of())


@dataclass(frozen=True)
class Parts:
    """The real ones by default. ``runner`` makes a :data:`Runner` of what ``open_board`` gave, as ``runner_on`` does."""

    open_board: Callable[[BoardTable], tuple[Any, BoardInfo]] = open_board
    runner: Callable[..., Runner] = runner_on
    prepare: Callable[[EntryTable, Path, Path], Subject] = prepared
    measure: Callable[..., Session] = measure_session
