"""The boards at the start of a run: those that answer, and those that are away and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from edgedeploy.boards.care.absence import PAUSE_S, Absence
from edgedeploy.errors import LoginRefused, UnknownHost, Unreachable
from edgedeploy.interfaces.board import Board
from edgedeploy.records.board import BoardInfo
from edgedeploy.spec.boards import BoardTable

Found = tuple[Board, BoardInfo]


@dataclass(frozen=True)
class Gathered:
    """``away`` are boards that may join later; at least one is ``here``."""

    here: tuple[Found, ...]
    away: tuple[BoardTable, ...] = ()


def gather(
    tables: Sequence[BoardTable],
    open_it: Callable[[BoardTable], Found],
    tell: Callable[[str], None],
    reached: Collection[str] = (),
) -> Gathered:
    """Asks each board once, and while none is here all of them again, each for as long as its table's ``away`` says. A host
    that nothing is known of is waited for only where the board was ``reached`` before: else its name is misspelt.

    Raises what ``open_it`` raises, and ``Unreachable`` when every board has been away for its limit.
    """
    absences = {table.name: Absence(table.name, table.away, tell) for table in tables}
    while True:
        here: list[Found] = []
        away: list[tuple[BoardTable, Unreachable]] = []
        for table in tables:
            try:
                here.append(open_it(table))
                absences[table.name].over()
            except LoginRefused:
                raise
            except Unreachable as exc:
                away.append((table, exc))
        if here:
            for table, missed in away:
                joins = f"it may join for {table.away:.0f} s"
                tell(f"board {table.name}: {missed.found}; the study begins without it, and {joins}")
            return Gathered(tuple(here), tuple(table for table, _ in away))
        for table, missed in away:
            if isinstance(missed, UnknownHost) and table.name not in reached:
                raise missed
        going_on = [absences[table.name].goes_on(missed) for table, missed in away]
        if not any(going_on):
            table, missed = away[0]
            raise absences[table.name].given_up(missed) from missed
        time.sleep(PAUSE_S)
