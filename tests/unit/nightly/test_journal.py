"""The journal of a lab: every job once, whoever dies, and a history that nothing rewrites."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from edgedeploy.errors import Busy, StorageError
from edgedeploy.nightly.holder import Holder
from edgedeploy.nightly.journal import Journal
from edgedeploy.nightly.rows import DONE, NOT_RUN, RUNNING, WAITING, JobKey, Measured
from edgedeploy.records.night import SeriesVerdict, Session, Verdict

NIGHT = "2026-11-29"
KEYS = [JobKey("seg", "cart", 1), JobKey("seg", "cart", 2)]
ME = Holder.this()
DEAD = replace(ME, pid=2**22 + 1)
FAR = replace(ME, host="elsewhere", boot_id="another boot")


def session(key: JobKey, night: str = NIGHT, **more: object) -> Session:
    return Session(key.entry, key.board, night, key.number, "2026-11-29T01:00:00Z", 12.5, **more)  # type: ignore[arg-type]


def verdict(night: str, loss: float = 0.0) -> Verdict:
    series = (SeriesVerdict("latency_p50_ns", "ok", 0, "", loss=loss),)
    return Verdict("seg", "cart", night, "ok", "as before", series=series, key="k1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path, "ward", ME).open()) as opened:
        opened.begin(NIGHT, 3600.0)
        opened.add(NIGHT, KEYS)
        yield opened


def other(path: Path, holder: Holder) -> Journal:
    return Journal(path, "ward", holder).open()


def test_a_job_is_claimed_once_and_its_session_is_kept(journal: Journal) -> None:
    assert journal.claim(NIGHT, KEYS[0]) and not journal.claim(NIGHT, KEYS[0])
    found = session(KEYS[0], losses={"latency_p50_ns": 0.01})
    journal.store(NIGHT, KEYS[0], found)
    journal.add(NIGHT, KEYS)  # as a resume does
    rows = journal.jobs(NIGHT)
    assert [row.state for row in rows] == [DONE, WAITING] and rows[0].session == found
    assert not journal.claim(NIGHT, KEYS[0])
    assert journal.spent() == {("seg", "cart"): [12.5]}


def test_threads_that_reach_for_one_job_get_it_once(journal: Journal) -> None:
    got: list[bool] = []
    ready = threading.Barrier(8)

    def reach() -> None:
        ready.wait()
        got.append(journal.claim(NIGHT, KEYS[0]))

    threads = [threading.Thread(target=reach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [*[False] * 7, True]


def test_a_second_process_is_sent_away_while_the_first_lives(journal: Journal, path: Path) -> None:
    with closing(other(path, FAR)) as second, pytest.raises(Busy, match=f"process {ME.pid} on"):
        second.begin(NIGHT, 3600.0)


@pytest.mark.parametrize("holder", [DEAD, FAR])
def test_a_night_of_the_dead_is_taken_up_and_they_store_nothing_more(
    path: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(other(path, holder)) as first, closing(other(path, ME)) as second:
        began = first.begin(NIGHT, 3600.0)
        first.add(NIGHT, KEYS)
        for key in KEYS:
            assert first.claim(NIGHT, key)
        first.store(NIGHT, KEYS[0], session(KEYS[0]))
        if holder == FAR:
            with pytest.raises(Busy, match="on elsewhere"):
                second.begin(NIGHT, 3600.0)
            monkeypatch.setattr("edgedeploy.nightly.journal.LEASE_S", -1.0)
        assert second.begin(NIGHT, 60.0).started_s == began.started_s, "the night began once"
        assert [row.state for row in second.jobs(NIGHT)] == [DONE, WAITING]
        assert second.claim(NIGHT, KEYS[1])
        for late in (lambda: first.store(NIGHT, KEYS[1], session(KEYS[1])), lambda: first.heard(NIGHT)):
            with pytest.raises(Busy, match="another process has it now"):
                late()
        first.give_back(NIGHT, KEYS[1])
        assert [row.state for row in second.jobs(NIGHT)] == [DONE, RUNNING]


def test_what_is_left_at_the_end_is_not_run_and_waits_again_when_the_night_goes_on(journal: Journal) -> None:
    journal.claim(NIGHT, KEYS[0])
    journal.give_back(NIGHT, KEYS[0], failed=True)
    assert journal.jobs(NIGHT)[0].attempts == 1
    assert journal.latest_open() is not None
    assert journal.end(NIGHT, lambda key: f"no time for {key.number}").ended_s is not None
    assert [(row.state, row.reason) for row in journal.jobs(NIGHT)] == [
        (NOT_RUN, "no time for 1"),
        (NOT_RUN, "no time for 2"),
    ]
    assert journal.latest_open() is None
    journal.reopen(NIGHT)
    assert [(row.state, row.reason, row.attempts) for row in journal.jobs(NIGHT)] == [(WAITING, "", 0)] * 2


def test_a_budget_that_is_over_is_no_open_night(path: Path) -> None:
    with closing(other(path, ME)) as journal:
        assert journal.begin(NIGHT, 0.0).left_s == 0.0
        assert journal.latest_open() is None


def test_a_session_that_gave_no_number_is_not_taken_for_measured(journal: Journal) -> None:
    for key, cause in zip(KEYS, ("", "drifted"), strict=True):
        journal.claim(NIGHT, key)
        journal.store(NIGHT, key, session(key, cause=cause))
    assert journal.spent() == {("seg", "cart"): [12.5]}
    assert journal.measured("2026-11-30") == {("seg", "cart"): Measured(NIGHT, 1)}
    assert journal.measured(NIGHT) == {}


def test_a_history_begins_where_something_else_was_accepted(journal: Journal) -> None:
    journal.accept("seg", "", "d1", "jane", "first seen", number=1)
    journal.keep_verdict(verdict(NIGHT, 0.5))
    journal.keep_verdict(verdict(NIGHT, 0.1))  # after two more sessions
    assert [found.series[0].loss for found in journal.history("seg", "cart", "2026-11-30")] == [0.1]
    assert journal.history("seg", "cart", NIGHT) == [] and journal.history("seg", "desk", "2026-11-30") == []
    moved = journal.accept("seg", "d1", "d2", "jane", "a new release", number=2)
    assert journal.history("seg", "cart", "2026-11-30") == []
    journal.begin("2026-11-30", 60.0)
    journal.keep_verdict(verdict("2026-11-30"))
    assert [found.night for found in journal.history("seg", "cart", "2026-12-01")] == ["2026-11-30"]
    assert [row.why for row in journal.accepted("seg")] == ["a new release", "first seen"]
    assert journal.accepted("seg")[0] == moved and moved.number == 2


def test_what_was_accepted_stays_in_the_log_as_it_was(journal: Journal) -> None:
    journal.accept("seg", "", "d1", "jane", "first seen", number=1)
    first = journal.accept("seg", "d1", "d2", "jane", "new release", number=2)
    assert journal.accept("seg", "d1", "d3", "joe", "another", number=2) == first
    assert [row.now for row in journal.accepted("seg")] == ["d2", "d1"]


def test_labs_do_not_see_each_other(journal: Journal, path: Path) -> None:
    with closing(Journal(path, "another", DEAD).open()) as second:
        assert second.jobs(NIGHT) == [] and second.night(NIGHT) is None
        second.begin(NIGHT, 60.0)


def test_a_journal_of_a_newer_release_is_refused(journal: Journal, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE edgedeploy_nightly SET version = 2")
    with pytest.raises(StorageError, match="its version is 2, and this release of edgedeploy knows 1"):
        Journal(path, "ward", ME).open()


def test_a_damaged_journal_is_told_and_left(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="Put a copy of it back"):
        Journal(path, "ward", ME).open()
    assert path.read_bytes() == before


def test_a_journal_whose_tables_are_damaged_is_told_as_one(path: Path) -> None:
    with closing(other(path, ME)) as opened:
        opened.begin(NIGHT, 3600.0)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StorageError, match=r"malformed.*Put a copy of it back"), closing(other(path, ME)) as opened:
        opened.jobs(NIGHT)


@pytest.mark.parametrize("text", ["{", "[1]", '{"entry": 1}', "[" * 5000])
def test_a_row_that_was_damaged_is_named(journal: Journal, path: Path, text: str) -> None:
    journal.claim(NIGHT, KEYS[0])
    journal.store(NIGHT, KEYS[0], session(KEYS[0]))
    journal.keep_verdict(verdict(NIGHT))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE edgedeploy_jobs SET session = ? WHERE session IS NOT NULL", (text,))
        connection.execute("UPDATE edgedeploy_verdicts SET verdict = ?", (text,))
    for read in (
        lambda: journal.jobs(NIGHT),
        lambda: journal.verdicts(NIGHT),
        lambda: journal.history("seg", "cart", "2027-01-01"),
    ):
        with pytest.raises(StorageError, match="of seg on cart, night 2026-11-29"):
            read()


def test_a_wrong_clock_when_something_was_accepted_hides_no_night(journal: Journal, path: Path) -> None:
    journal.keep_verdict(replace(verdict("2026-11-27"), generation=1))
    journal.begin("2026-11-27", 3600.0)
    journal.accept("seg", "d1", "d2", "jane", "a new release", number=2)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE edgedeploy_accepted SET at_s = at_s + 1e9")
    journal.begin("2026-11-28", 3600.0)
    journal.keep_verdict(replace(verdict("2026-11-28"), generation=2))
    assert [item.night for item in journal.history("seg", "cart", NIGHT)] == ["2026-11-28"]
