"""What a night consists of: every entry on each of its boards, and what is known of how long that takes."""

from __future__ import annotations

from datetime import date

from edgedeploy.nightly.journal import Journal
from edgedeploy.nightly.order import SESSIONS, Pair, expected_session_s
from edgedeploy.nightly.rows import JobKey
from edgedeploy.spec.lab import LabSpec

THIS_HOST = "this host"


def pairs_of(spec: LabSpec, journal: Journal | None, night: str) -> list[Pair]:
    """All pairs, in the lab file's order, without regard to what is done of this night. ``journal`` is None for a lab that
    has measured nothing."""
    spent = journal.spent() if journal else {}
    measured = journal.measured(night) if journal else {}
    of_entry: dict[str, list[float]] = {}
    of_board: dict[str, list[float]] = {}
    for (entry_id, board), values in spent.items():
        of_entry.setdefault(entry_id, []).extend(values)
        of_board.setdefault(board, []).extend(values)
    machines = {table.name: table.name if table.kind == "ssh" else THIS_HOST for table in spec.boards}
    found = []
    for entry in spec.entries:
        for board in entry.boards_of(spec.board_names):
            own = spent.get((entry.id, board), ())
            past = measured.get((entry.id, board))
            found.append(
                Pair(
                    entry.id,
                    board,
                    entry.importance,
                    nights=None if past is None else nights_between(past.last, night),
                    session_s=expected_session_s(own, of_entry.get(entry.id, ()), of_board.get(board, ())),
                    times=0 if past is None else past.nights,
                    machine=machines[board],
                )
            )
    return found


def keys_of(pair: Pair) -> list[JobKey]:
    """The sessions that a pair has every night."""
    return [JobKey(pair.entry, pair.board, number) for number in range(1, SESSIONS + 1)]


def nights_between(earlier: str, later: str) -> float:
    """From date to date. 0 for what is no later night."""
    return float(max(0, (date.fromisoformat(later) - date.fromisoformat(earlier)).days))
