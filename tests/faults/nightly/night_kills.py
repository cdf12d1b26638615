"""Kills a night again and again, prints JSON: ``python night_kills.py FOLDER``.

The night runs on a board that is this host, in real processes, from a signed bundle. At each of these moments the host's
process gets SIGKILL, and the night is started again: before anything is frozen, in the middle of a first session, just
after a session was stored, in the middle of the sessions that a suspicion asks for, and while the results are written.
Every run is a fork of this process, which has imported everything and started nothing.

Times are a STAND-IN (``tests/stand_in_times.py``), so that two nights can be compared, and one entry is a fifth slower than
what was accepted, which asks for two more sessions. The verdicts must be those of an undisturbed night, each session must
have been kept once, and what was kept before a kill must be there unchanged after it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnx  # noqa: F401  (imported before the forks)
import onnxruntime  # noqa: F401
from fault_kit import running_jobs
from lab_kit import entry, local, write_bundle, write_lab
from night_kit import changed_weight
from stand_in_times import Measure, standing_in

from edgedeploy.boards import open as opening
from edgedeploy.boards.agent.session import BoardOptions, RemoteSession
from edgedeploy.nightly.bundles import of_bundle
from edgedeploy.nightly.night import run_night
from edgedeploy.nightly.place import Lab
from edgedeploy.nightly.results import write
from edgedeploy.nightly.results.kept import read_night
from edgedeploy.records.job import Job, RawRun

NIGHT: Final = "2026-11-29"
SLOWEST_S: Final = 240.0
SLOWER: Final = 1.2


def slowed(measure: Measure, digest: str) -> Measure:
    """One artifact is slower than its baseline."""

    def measured(session: RemoteSession, job: Job, collect_into: Path) -> RawRun:
        raw = standing_in(measure)(session, job, collect_into)
        if job.candidate.artifact.digest != digest or raw.baseline is None:
            return raw
        blocks = tuple(tuple(round(SLOWER * ns) for ns in block) for block in raw.baseline.blocks_ns)
        return replace(raw, candidate=replace(raw.candidate, blocks_ns=blocks))

    return measured


def run_in_fork(path: Path, *, to_be_killed: bool = False) -> int:
    """The child's process id. ``to_be_killed``: it waits for ever where the message would be sent, when all is written."""
    slow = of_bundle(path.parent.parent / "thyroid-1", path.parent.parent / "key.pem.pub").artifact.digest
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    opening.BoardOptions = partial(BoardOptions, unchanged_s=0.5, reconnect_pause_s=0.1)  # type: ignore[misc,assignment]
    RemoteSession.measure = slowed(RemoteSession.measure, slow)  # type: ignore[method-assign]
    if to_be_killed:
        write.tell = lambda *given: time.sleep(SLOWEST_S)  # type: ignore[assignment]
    status = 1
    try:
        run_night(Lab.load(path), NIGHT)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def kept(path: Path) -> dict[tuple[str, str, int], str]:
    """The sessions in the journal, as they are written there."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT entry, board, number, session FROM edgedeploy_jobs WHERE session IS NOT NULL")
        return {(name, board, number): text for name, board, number, text in rows}
    return {}


def strike(path: Path, moment: Callable[[], bool]) -> None:
    """Run the night, and kill it when the moment has come."""
    child = run_in_fork(path, to_be_killed=True)
    give_up_s = time.monotonic() + SLOWEST_S
    while not moment():
        pid, status = os.waitpid(child, os.WNOHANG)
        assert not pid, f"the night ended ({os.waitstatus_to_exitcode(status)}) before it could be killed"
        assert time.monotonic() < give_up_s, "the moment to kill it never came"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def to_the_end(path: Path) -> None:
    _, status = os.waitpid(run_in_fork(path), 0)
    assert os.waitstatus_to_exitcode(status) == 0, "an undisturbed run failed"


def verdicts(out: Path) -> list[Any]:
    """Without what the board's heat and clocks were."""
    night = read_night(out / f"night-{NIGHT}.json")
    return [replace(item, state=None) for item in night.verdicts]


def main(folder: Path) -> None:
    write_bundle(folder, "thyroid-1")
    write_bundle(folder, "thyroid-2", network=changed_weight)
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    labs = {}
    for place in (undisturbed, killed):
        place.mkdir()
        entries = [
            entry(name, f"../{bundle}", trust="../key.pem.pub", baseline=f"../{bundle}")
            for name, bundle in (("first", "thyroid-1"), ("second", "thyroid-2"))
        ]
        labs[place] = write_lab(place, local(folder), entries)
    to_the_end(labs[undisturbed])

    path, out = labs[killed], killed / "nights"
    journal, board = out / "journal.sqlite", folder / "desk"
    seen: dict[tuple[str, str, int], str] = {}

    def after(count: int, *, running: bool = False) -> Callable[[], bool]:
        return lambda: len(kept(journal)) >= count and (not running or bool(running_jobs(board)))

    moments: list[Callable[[], bool]] = [
        (out / "lab.json").exists,
        after(0, running=True),
        after(1),
        after(2, running=True),
        after(4),
        (out / "junit.xml").exists,
    ]
    for moment in moments:
        strike(path, moment)
        now = kept(journal)
        assert all(now.get(key) == text for key, text in seen.items()), "a session that was kept is another now"
        seen = now
    to_the_end(path)
    assert kept(journal).keys() == kept(undisturbed / "nights" / "journal.sqlite").keys()
    assert all(kept(journal)[key] == text for key, text in seen.items())
    for found, wanted in zip(verdicts(out), verdicts(undisturbed / "nights"), strict=True):
        assert found == wanted, f"the verdict is another than an undisturbed night's:\n{found}\n{wanted}"
    with closing(sqlite3.connect(journal)) as connection:
        states = dict(connection.execute("SELECT state, count(*) FROM edgedeploy_jobs GROUP BY state"))
        log = connection.execute("SELECT entry, number FROM edgedeploy_accepted ORDER BY entry, number").fetchall()
    assert states == {"done": len(seen)} and log == [("first", 1), ("second", 1)], (states, log)
    print(json.dumps({"kills": len(moments), "sessions": len(seen)}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
