"""A night that is over, as one record for results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgedeploy.nightly import rows as kept
from edgedeploy.nightly.rows import JobRow, NightRow
from edgedeploy.nightly.station import Station
from edgedeploy.records.night import Acceptance, BoardHealth, Night, Verdict
from edgedeploy.spec.lab import LabSpec
from edgedeploy.study.events import utc_text
from edgedeploy.study.preflight import versions

Rows = Mapping[tuple[str, str], Sequence[JobRow]]


def night_of(
    spec: LabSpec,
    ended: NightRow,
    verdicts: Sequence[Verdict],
    stations: Sequence[Station],
    rows: Rows,
    moved: Sequence[kept.Acceptance] = (),
) -> Night:
    """``rows`` are the night's jobs by entry and board, ``moved`` what somebody accepted so far."""
    return Night(
        lab=spec.lab.name,
        night=ended.night,
        started_utc=utc_text(ended.started_s),
        ended_utc=utc_text(ended.ended_s),
        budget_s=ended.budget_s,
        verdicts=tuple(verdicts),
        boards=tuple(_health(station, rows) for station in stations),
        alarms=tuple(
            f"{item.entry} on {item.board}: {item.reason}{f' ({item.owner})' if item.owner else ''}"
            for item in verdicts
            if item.outcome == "regression"
        ),
        tools=versions(),
        accepted=tuple(Acceptance(one.entry, one.why, utc_text(one.at_s), one.now) for one in moved),
    )


def _health(station: Station, rows: Rows) -> BoardHealth:
    own = [row for (_, board), of_pair in rows.items() if board == station.name for row in of_pair]
    sessions = sorted((row.session for row in own if row.session is not None), key=lambda item: item.started_utc)
    info = station.info or next((item.info for item in reversed(sessions) if item.info is not None), None)
    error = station.error
    return BoardHealth(
        name=station.name,
        answered=info is not None,
        state=next((item.state for item in reversed(sessions) if item.state is not None), None),
        quarantined=error.found if type(error).__name__ == "Quarantined" and error is not None else "",
        busy_s=sum(item.spent_s for item in sessions),
        waiting=sum(row.session is None for row in own),
        error="" if error is None else str(error),
        provenance=info.provenance if info is not None else "",
    )
