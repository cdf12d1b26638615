"""A night with STAND-INS for boards and sessions: what is run, what a failing board costs, what a resume repeats."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_up
import pytest
from fault_kit import wait_for

from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.errors import BundleError, Busy, CommandFailed, DamagedFile, HostKeyError, Unreachable
from edgedeploy.nightly import station
from edgedeploy.nightly.journal import Journal
from edgedeploy.nightly.judging import Judge
from edgedeploy.nightly.parts import Parts
from edgedeploy.nightly.place import Lab
from edgedeploy.nightly.run import NightRun
from edgedeploy.nightly.states import board_state
from edgedeploy.records.night import Accepted, ArtifactState, Night, Session
from edgedeploy.spec.lab import parse_lab
from edgedeploy.study.events import Event

NIGHT = "2026-11-29"
ARTIFACT = ArtifactState("d1", {})
LAB = """\
[lab]
name = "ward"
budget = "{budget}"
"""
BOARD = '[[boards]]\nname = "{name}"\nkind = "ssh"\nhost = "{name}.lab"\naway = "0 s"\n'
ENTRY = '[[entries]]\nid = "{name}"\nbundle = "{name}"\ntrust = "t"\nimportance = {importance}\n'


class Subject:
    """Of an entry that is shipped as it was accepted."""

    def __init__(self) -> None:
        self.frozen = SimpleNamespace(generation=1, artifact=ARTIFACT)
        self.margins: dict[str, float] = {}
        self.candidate = self.baseline = SimpleNamespace(artifact=SimpleNamespace(target="onnxruntime"))

    def accepted_on(self, board: str, sessions: list[Session]) -> Accepted | None:
        first = next((item for item in sessions if item.counts), None)
        if first is None or first.info is None or first.state is None:
            return None
        return Accepted(first.night, ARTIFACT, first.state, first.info)


@dataclass
class Boards:
    """``fails`` may raise, or say what is wrong, for a session by entry, board and number; ``losses`` are by entry. Until
    two sessions have run at a time, each waits for another, ``waits_s`` at most: threads of a busy machine start late."""

    losses: dict[str, float] = field(default_factory=dict)
    fails: Callable[[str, str, int], str] = lambda entry, board, number: ""
    refuses: dict[str, Exception] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)
    ran: list[tuple[str, str, int]] = field(default_factory=list)
    side_by_side: int = 0
    kernels: dict[str, str] = field(default_factory=dict)
    takes_s: float = 0.0
    waits_s: float = 0.0
    begun: Counter[str] = field(default_factory=Counter)
    _at_work: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def parts(self) -> Parts:
        return Parts(open_board=self._open, prepare=self._prepare, measure=self._measure)  # type: ignore[arg-type]

    def _info(self, name: str) -> Any:
        return made_up.board(
            name=name, identity=name, boot_id=self.kernels.get(name, name), runtimes={"onnxruntime": "1"}
        )

    def _open(self, table: Any) -> Any:
        if table.name in self.refuses:
            raise self.refuses[table.name]
        return SimpleNamespace(name=table.name), self._info(table.name)

    def _prepare(self, entry: Any, base: Path, frozen: Path) -> Subject:
        if entry.id in self.broken:
            raise self.broken[entry.id]
        (frozen / "entries" / entry.id / "1").mkdir(parents=True, exist_ok=True)
        return self._subject_of(entry.id)

    def _subject_of(self, name: str) -> Subject:
        found = Subject()
        found.name = name  # type: ignore[attr-defined]
        return found

    def _measure(self, subject: Any, board: str, run: object, plan: object, *, night: str, number: int) -> Session:
        info = self._info(board)
        with self._lock:
            self._at_work[info.kernel] += 1
            self.begun[board] += 1
            assert self._at_work[info.kernel] == 1, "two sessions on one machine at the same time"
            self.side_by_side = max(self.side_by_side, sum(self._at_work.values()))
        give_up_s = time.monotonic() + self.waits_s
        while self.side_by_side < 2 and time.monotonic() < give_up_s:
            time.sleep(0.005)
        time.sleep(self.takes_s)
        try:
            error = self.fails(subject.name, board, number)
        finally:
            with self._lock:
                self._at_work[info.kernel] -= 1
        self.ran.append((subject.name, board, number))
        usual = (
            {"error": error, "cause": "it failed"} if error else {"losses": {"l": self.losses.get(subject.name, 0.0)}}
        )
        state = None if error else board_state(info, {}, {})
        known = {"info": info, "state": state, "artifact": ARTIFACT, "baseline_digest": "d1"}
        return Session(subject.name, board, night, number, f"{night}T01:00:0{number}Z", 30.0, **known, **usual)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(station, "PAUSE_S", 0.01)
    monkeypatch.setenv("EDGEDEPLOY_STATE", str(tmp_path / "state"))
    yield


def lab(folder: Path, boards: str, entries: dict[str, float], budget: str = "1 h") -> Lab:
    text = LAB.format(budget=budget)
    text += "".join(BOARD.format(name=name) for name in boards)
    text += "".join(ENTRY.format(name=name, importance=importance) for name, importance in entries.items())
    return Lab(*parse_lab(text, folder / "lab.toml"))


def run(place: Lab, boards: Boards, night: str = NIGHT, **given: Any) -> Night:
    with closing(place.open()) as journal:
        return NightRun(place, journal, parts=boards.parts(), **given).run(night)


def outcomes(night: Night) -> dict[str, str]:
    return {f"{item.entry}@{item.board}": item.outcome for item in night.verdicts}


def test_every_entry_is_measured_twice_on_each_of_its_boards_side_by_side(tmp_path: Path) -> None:
    boards, heard = Boards(waits_s=60.0), list[Event]()
    night = run(lab(tmp_path, "abc", {"x": 1, "y": 1}), boards, observer=heard.append)
    assert sorted(boards.ran) == sorted((e, b, n) for e in "xy" for b in "abc" for n in (1, 2))
    assert boards.side_by_side > 1
    assert set(outcomes(night).values()) == {"young"} and len(night.verdicts) == 6
    assert all(board.answered and board.busy_s == 120.0 for board in night.boards)
    assert (heard[-1].done, heard[-1].total) == (12, 12)


def test_boards_of_one_machine_take_turns(tmp_path: Path) -> None:
    boards = Boards(takes_s=0.02, kernels={"a": "k", "b": "k"})
    run(lab(tmp_path, "abc", {"x": 1}), boards)
    assert len(boards.ran) == 6


def test_a_suspicion_is_measured_twice_more_at_once_and_only_there(tmp_path: Path) -> None:
    boards = Boards(losses={"slow": 0.2})
    night = run(lab(tmp_path, "a", {"slow": 1, "x": 1}), boards)
    assert boards.ran == [("slow", "a", n) for n in (1, 2, 3, 4)] + [("x", "a", 1), ("x", "a", 2)]
    assert outcomes(night) == {"slow@a": "regression", "x@a": "young"}
    assert len(night.alarms) == 1 and night.alarms[0].startswith("slow on a: l: ")


def test_a_board_that_is_away_costs_its_own_jobs_only(tmp_path: Path) -> None:
    boards = Boards(refuses={"b": Unreachable("connect to b.lab", "no route")})
    night = run(lab(tmp_path, "abc", {"x": 1, "y": 1}), boards)
    assert Counter(board for _, board, _ in boards.ran) == {"a": 4, "c": 4}
    assert {name for name, outcome in outcomes(night).items() if outcome == "board"} == {"x@b", "y@b"}
    health = next(board for board in night.boards if board.name == "b")
    assert not health.answered and health.waiting == 4 and "no route" in health.error


def test_a_board_that_comes_back_while_others_work_has_its_jobs(tmp_path: Path) -> None:
    boards = Boards(refuses={"b": Unreachable("connect to b.lab", "no route")})

    def back(entry: str, board: str, number: int) -> str:
        if board == "a":  # at work until the other one is back
            boards.refuses.clear()
            wait_for("a job of the board that was away", lambda: boards.begun["b"])
        return ""

    boards.fails = back
    assert set(outcomes(run(lab(tmp_path, "ab", {"x": 1}), boards)).values()) == {"young"}


def test_a_job_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    failed = []

    def fails(entry: str, board: str, number: int) -> str:
        failed.append(number)
        return "CommandFailed" if len(failed) == 1 else ""

    boards = Boards(fails=fails)
    assert outcomes(run(lab(tmp_path, "a", {"x": 1}), boards)) == {"x@a": "young"}
    assert boards.ran == [("x", "a", 1), ("x", "a", 1), ("x", "a", 2)]


def test_a_board_that_fails_again_and_again_is_set_aside(tmp_path: Path) -> None:
    boards = Boards(fails=lambda entry, board, number: "CommandFailed" if board == "a" else "")
    night = run(lab(tmp_path, "ab", {"x": 1, "y": 1, "z": 1}), boards)
    assert sum(board == "a" for _, board, _ in boards.ran) == 3
    assert {name for name, outcome in outcomes(night).items() if outcome == "board"} == {"x@a", "y@a", "z@a"}
    assert [record.name for record in Quarantine().records()] == ["a"]
    assert "3 jobs in a row failed" in night.boards[0].quarantined and not night.boards[1].quarantined


@pytest.mark.parametrize("exc", [HostKeyError("connect", "another key"), CommandFailed("probe", "no python")])
def test_a_board_that_may_not_be_used_is_left_at_once(tmp_path: Path, exc: Exception) -> None:
    night = run(lab(tmp_path, "ab", {"x": 1}), Boards(refuses={"a": exc}))
    assert outcomes(night) == {"x@a": "board", "x@b": "young"}


def test_a_broken_entry_costs_its_own_jobs_only(tmp_path: Path) -> None:
    broken = {"x": BundleError("bundle x", "its signature is another's"), "z": OSError(28, "No space left on device")}
    boards = Boards(broken={"x": broken["x"]})
    night = run(lab(tmp_path, "ab", {"x": 1, "y": 1}), boards)
    assert outcomes(night) == {"x@a": "artifact", "x@b": "artifact", "y@a": "young", "y@b": "young"}
    with pytest.raises(OSError, match="No space left"):
        run(lab(tmp_path, "ab", {"z": 1}), Boards(broken={"z": broken["z"]}), "2026-11-30")


def test_what_was_accepted_is_not_frozen_again_where_its_folder_is_gone(tmp_path: Path) -> None:
    place = lab(tmp_path, "a", {"seg": 1, "other": 1})
    run(place, Boards())
    shutil.rmtree(place.frozen / "entries" / "seg")
    found = run(place, Boards(), "2026-11-30")
    assert outcomes(found) == {"seg@a": "infrastructure", "other@a": "young"}
    assert "seen for the first time" in found.verdicts[0].reason and not (place.frozen / "entries" / "seg").exists()


def test_a_damaged_frozen_file_costs_its_entry_only_and_is_named(tmp_path: Path) -> None:
    damaged = DamagedFile("frozen file /lab/reference.onnx", "it is not the file that was accepted")
    night = run(lab(tmp_path, "a", {"x": 1, "y": 1}), Boards(broken={"x": damaged}))
    assert outcomes(night) == {"x@a": "infrastructure", "y@a": "young"}
    assert any("/lab/reference.onnx" in verdict.reason for verdict in night.verdicts)


def test_what_does_not_fit_into_the_budget_is_not_run_and_says_so(tmp_path: Path) -> None:
    """A session is expected to take 120 s: a pair fits once."""
    boards = Boards()
    night = run(lab(tmp_path, "a", {"minor": 1, "major": 2}, budget="300 s"), boards)
    assert outcomes(night) == {"minor@a": "young", "major@a": "young"}, "it took less than was expected"
    place = lab(tmp_path / "2", "a", {"minor": 1, "major": 2}, budget="300 s")
    with closing(place.open()) as journal:
        slow = NightRun(place, journal, parts=boards.parts())

        def takes_a_minute(entry: str, board: str, number: int) -> str:
            slow._deadline_s -= 60.0
            return ""

        boards.fails = takes_a_minute
        night = slow.run(NIGHT)
    assert outcomes(night) == {"minor@a": "not_run", "major@a": "young"}
    assert "did not fit into" in night.verdicts[0].reason
    assert night.boards[0].waiting == 2


def test_a_night_ends_with_its_budget_whatever_a_board_does(tmp_path: Path) -> None:
    """SIMULATION of time: the board is at work when it is over."""

    def hangs(entry: str, board: str, number: int) -> str:
        night._deadline_s = 0.0
        while True:
            time.sleep(0.01)

    place = lab(tmp_path, "a", {"x": 1}, budget="400 s")
    with closing(place.open()) as journal:
        night = NightRun(place, journal, parts=Boards(fails=hangs).parts())
        found = night.run(NIGHT)
        assert outcomes(found) == {"x@a": "not_run"}
        assert [row.state for row in journal.jobs(NIGHT)] == ["not_run"] * 2


def test_a_resume_runs_what_is_missing(tmp_path: Path) -> None:
    """Ctrl-C in the middle, then the same night again, then once more when nothing is left."""

    class Killed(Exception):
        pass

    def dies(entry: str, board: str, number: int) -> str:
        if (entry, board, number) == ("y", "a", 2):
            raise Killed
        return ""

    place, first = lab(tmp_path, "a", {"x": 1, "slow": 1, "y": 1}), Boards(losses={"slow": 0.2}, fails=dies)
    with pytest.raises(Killed):
        run(place, first)
    second = Boards(losses={"slow": 0.2})
    night = run(place, second)
    assert second.ran == [("y", "a", 2)]
    assert outcomes(night) == {"x@a": "young", "slow@a": "regression", "y@a": "young"}
    third = Boards()
    again = run(place, third)
    assert third.ran == [] and again.verdicts == night.verdicts and again.boards[0].busy_s == 240.0


def test_a_kill_between_the_last_session_and_its_verdict_leaves_no_suspicion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict that is kept is the one after two sessions."""

    class Killed(Exception):
        pass

    def killed(judge: Judge, entry: str, board: str, sessions: list[Session], subject: Any) -> Any:
        if len(sessions) == 4:
            raise Killed
        return usual(judge, entry, board, sessions, subject)

    usual, place = Judge.verdict, lab(tmp_path, "a", {"slow": 1})
    monkeypatch.setattr(Judge, "verdict", killed)
    with pytest.raises(Killed):
        run(place, Boards(losses={"slow": 0.2}))
    monkeypatch.setattr(Judge, "verdict", usual)
    again = Boards(losses={"slow": 0.2})
    assert outcomes(run(place, again)) == {"slow@a": "regression"} and again.ran == []


def test_what_became_of_a_night_is_still_known_when_its_budget_is_over(tmp_path: Path) -> None:
    place = lab(tmp_path, "ab", {"x": 1, "y": 1})
    boards = Boards(refuses={"b": Unreachable("connect to b.lab", "no route")}, broken={"y": BundleError("y", "torn")})
    night = run(place, boards)
    assert outcomes(night) == {"x@a": "young", "x@b": "board", "y@a": "artifact", "y@b": "artifact"}
    with closing(place.open()) as journal:
        later = NightRun(place, journal, parts=Boards().parts())
        journal.begin = partial(late, journal.begin)  # type: ignore[method-assign]
        again = later.run(NIGHT)
    assert [(item.outcome, item.reason) for item in again.verdicts] == [
        (item.outcome, item.reason) for item in night.verdicts
    ]


def late(begin: Callable[..., Any], *given: Any) -> Any:
    return replace(begin(*given), budget_s=0.0)


def test_an_interrupted_night_is_let_go(tmp_path: Path) -> None:
    def interrupted(entry: str, board: str, number: int) -> str:
        raise RuntimeError("as if by Ctrl-C")

    place = lab(tmp_path, "a", {"x": 1})
    with closing(place.open()) as journal, closing(other(place, journal)) as second:
        with pytest.raises(RuntimeError):
            NightRun(place, journal, parts=Boards(fails=interrupted).parts()).run(NIGHT)
        assert journal.at_work() is None
        assert second.begin(NIGHT, 60.0).ended_s is None


def test_a_second_process_at_the_same_time_is_sent_away(tmp_path: Path) -> None:
    place = lab(tmp_path, "a", {"x": 1})
    with closing(place.open()) as journal, closing(other(place, journal)) as second:
        journal.begin(NIGHT, 3600.0)
        with pytest.raises(Busy, match="is at work on it"):
            NightRun(place, second, parts=Boards().parts()).run(NIGHT)


def other(place: Lab, journal: Journal) -> Journal:
    """Of a process on another host."""
    return place.open(replace(journal.holder, host="elsewhere", boot_id="another boot"))
