"""A night from its lab file to its results, and what one would be."""

from __future__ import annotations

import re
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from edgedeploy.errors import BundleError, GoalNotMet, SpecError
from edgedeploy.nightly.bundles import of_bundle
from edgedeploy.nightly.idle import Idle
from edgedeploy.nightly.journal import Journal
from edgedeploy.nightly.order import Pair, Planned, plan
from edgedeploy.nightly.parts import Parts
from edgedeploy.nightly.picks import check_pick
from edgedeploy.nightly.place import Lab
from edgedeploy.nightly.results import Earlier, Written, write_results
from edgedeploy.nightly.rows import DONE
from edgedeploy.nightly.run import NightRun
from edgedeploy.nightly.subject import STUDY_FILE
from edgedeploy.nightly.tonight import pairs_of
from edgedeploy.study.events import Event, EventLog, Observer, ignore, utc_text

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


def run_night(
    lab: Lab, night: str = "", *, observer: Observer = ignore, parts: Parts | None = None, idle: bool = True
) -> Written:
    """Measure what is missing of a night, and write its results. ``night`` is the date that it began on (UTC): the one that
    was interrupted inside its budget when left out, else today's. Without ``idle`` no study goes on: boards that another
    process has, by Dask, are not this host's to search on.

    Raises ``SpecError``, ``Busy`` while another process is at work on it, ``StorageError``.
    """
    if night:
        check_date(night)
    with lab.secrets_kept(), closing(lab.open()) as journal:
        name = night or _default(journal)
        with EventLog(lab.out, private=lab.private) as log:
            log.start(lab.spec.lab.name, {"night": name, "budget_s": lab.spec.lab.budget})

            def told(event: Event) -> None:
                log(event)
                observer(event)

            studies = lab.spec.idle.studies if idle else ()
            night_run = NightRun(lab, journal, observer=told, parts=parts)
            with Idle(studies, lab.base, lab.out, night_run.say) as meanwhile:
                found = night_run.run(name, meanwhile.look)
                alarm = lab.spec.alarm.command if lab.spec.alarm else ()
                written = write_results(found, Earlier(lab.out, name), lab.out, alarm)
                with suppress(KeyboardInterrupt):  # everything is written: it ends early, that is all
                    meanwhile.rest(night_run.budget_left_s)
            left = sum(item.outcome == "not_run" for item in found.verdicts)
            log.finish("partial" if left else "done", len(found.verdicts) - left, len(found.verdicts))
        return written


@dataclass(frozen=True)
class Forecast:
    """What a night would run: ``pairs`` is every entry on each of its boards, ``done`` how many sessions of the night there
    are already."""

    lab: str
    night: str
    budget_s: float
    left_s: float
    planned: Planned
    pairs: tuple[Pair, ...]
    done: int

    def as_json(self) -> dict[str, Any]:
        turns = [
            {"entry": t.pair.entry, "board": t.pair.board, "begins_s": t.begins_s, "takes_s": t.pair.expected_s}
            for t in self.planned.turns
        ]
        left_out = [
            {"entry": pair.entry, "board": pair.board, "reason": why} for pair, why in self.planned.left_out.items()
        ]
        told = {"lab": self.lab, "night": self.night, "budget_s": self.budget_s, "left_s": self.left_s}
        return {**told, "done": self.done, "ends_s": self.planned.ends_s, "turns": turns, "left_out": left_out}


def forecast(lab: Lab, night: str = "") -> Forecast:
    """What :func:`run_night` would do. No board is touched, nothing is written. Raises ``SpecError`` and ``BundleError`` for
    an entry that could not be measured."""
    if night:
        check_date(night)
    with lab.secrets_kept():
        check_entries(lab)
        journal = lab.look()
        if journal is None:
            return _forecast(lab, None, night or utc_text()[:10])
        with closing(journal):
            return _forecast(lab, journal, night or _default(journal))


def _forecast(lab: Lab, journal: Journal | None, night: str) -> Forecast:
    budget_s = lab.spec.lab.budget
    row = journal.night(night) if journal else None
    rows = journal.jobs(night) if journal else []
    done = {(job.key.entry, job.key.board): 0 for job in rows}
    asked = dict(done)
    for job in rows:
        asked[job.key.entry, job.key.board] += 1
        done[job.key.entry, job.key.board] += job.state == DONE
    pairs = tuple(pairs_of(lab.spec, journal, night))
    todo = []
    for pair in pairs:
        key = (pair.entry, pair.board)
        left = max(asked.get(key, 0), pair.sessions) - done.get(key, 0)
        if left:
            todo.append(Pair(**{**vars(pair), "sessions": left}))
    left_s = budget_s if row is None else row.left_s
    return Forecast(lab.spec.lab.name, night, budget_s, left_s, plan(todo, left_s), pairs, sum(done.values()))


def check_entries(lab: Lab) -> None:
    """Look at what every entry names, without running any of it. Raises ``SpecError`` and ``BundleError``, with the place in
    the lab file."""
    for index, entry in enumerate(lab.spec.entries):
        for key in ("bundle", "trust", "study", "baseline"):
            value = getattr(entry, key)
            place = lab.base / value if value else None
            if place is not None and not place.exists():
                raise lab.source.error(f"entries[{index}].{key}", f"{entry.id}: there is no {place}", "Check its path")
        if entry.study is not None and not (lab.base / entry.study / STUDY_FILE).is_file():
            found = f"{entry.id}: {lab.base / entry.study} is no study's folder (it has no {STUDY_FILE})"
            raise lab.source.error(f"entries[{index}].study", found, "Give the --out of a search")
        if entry.study is not None:
            try:
                check_pick(lab.base / entry.study, entry.pick)
            except (GoalNotMet, SpecError) as exc:
                found = f"{entry.id}: {exc.asked}: {exc.found}"
                raise lab.source.error(f"entries[{index}].study", found, exc.remedy) from None
        if entry.bundle is not None and entry.trust is not None:
            try:
                of_bundle(lab.base / entry.bundle, lab.base / entry.trust)
            except BundleError as exc:
                where = lab.source.error(f"entries[{index}].bundle", exc.asked)
                raise BundleError(where.asked, f"{entry.id}: {exc.found}", exc.remedy) from None


def check_date(night: str) -> None:
    """Raises ``SpecError``."""
    try:
        sound = _DATE.fullmatch(night) is not None and bool(date.fromisoformat(night))
    except ValueError:
        sound = False
    if not sound:
        raise SpecError(f"--night {night!r}", "it is no date", "The day on which the night began, such as 2026-11-29")


def _default(journal: Journal) -> str:
    """The night that goes on, else the one that begins now."""
    going_on = journal.latest_open()
    return going_on.night if going_on else utc_text()[:10]
