"""A study's events.jsonl: whole lines with the time, over several runs, kills and full disks."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edgedeploy import Event, SpecError, Unreachable
from edgedeploy.study.events import EVENTS_FILE, EventLog, read_events

UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def run(folder: Path, *texts: str, **options: Any) -> None:
    """One run that ends by itself."""
    with EventLog(folder) as log:
        log.start("squares", options)
        for number, text in enumerate(texts, 1):
            log(Event("trial", text, number, 6, eta_s=1.5, best="the best", eta_at_least=True))
        log.finish("trials", len(texts), 6)


def kinds(folder: Path) -> list[str]:
    return [event["kind"] for event in read_events(folder)]


def test_a_run_is_a_start_its_events_and_an_end(tmp_path: Path) -> None:
    run(tmp_path, "first", "second", trials=6)
    start, first, _, end = events = read_events(tmp_path)
    assert [event["kind"] for event in events] == ["start", "trial", "trial", "end"]
    assert start["options"] == {"trials": 6}
    assert start["version"] in start["text"]
    assert start["pid"] > 0
    told = {"text": "first", "done": 1, "total": 6, "eta_s": 1.5, "best": "the best", "eta_at_least": True}
    assert {key: first[key] for key in told} == told
    assert (end["reason"], end["done"], end["total"]) == ("trials", 2, 6)
    assert all(UTC.fullmatch(event["utc"]) for event in events)
    assert [event["at_s"] for event in events] == sorted(event["at_s"] for event in events)
    assert events[0]["at_s"] < 5


def test_runs_that_go_on_append(tmp_path: Path) -> None:
    run(tmp_path, "one")
    run(tmp_path, "two")
    assert kinds(tmp_path) == ["start", "trial", "end"] * 2


@pytest.mark.parametrize(
    ("raised", "reason", "text"),
    [
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (Unreachable("board cart", "no answer", "Turn it on"), "error", "Unreachable: board cart: no answer"),
        (ZeroDivisionError("a bug"), "error", "ZeroDivisionError: a bug"),
    ],
)
def test_the_end_says_why_where_a_run_does_not_end_by_itself(
    raised: BaseException, reason: str, text: str, tmp_path: Path
) -> None:
    with pytest.raises(type(raised)), EventLog(tmp_path) as log:
        log.start("squares", {})
        raise raised
    end = read_events(tmp_path)[-1]
    assert (end["kind"], end["reason"], end["text"]) == ("end", reason, text)


@pytest.mark.parametrize("torn", [b'{"utc": "2026', b"\x00\x00\xff", b"[1, 2]", b"\n"])
def test_a_torn_line_costs_itself_alone(torn: bytes, tmp_path: Path) -> None:
    run(tmp_path, "one")
    file = tmp_path / EVENTS_FILE
    file.write_bytes(file.read_bytes() + torn)
    assert kinds(tmp_path) == ["start", "trial", "end"]
    run(tmp_path, "two")
    assert kinds(tmp_path) == ["start", "trial", "end"] * 2


def test_a_study_without_the_file_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []


def test_a_full_disk_is_told_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedeploy.study.events.EVENTS_FILE", "full")
    with caplog.at_level(logging.WARNING, logger="edgedeploy"):
        run(Path("/dev"), "one", "two")
    (said,) = caplog.messages
    assert "/dev/full cannot be written" in said
    assert "No space left on device" in said


def test_a_link_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine\n")
    (tmp_path / EVENTS_FILE).symlink_to(elsewhere)
    with caplog.at_level(logging.WARNING, logger="edgedeploy"):
        run(tmp_path, "one", "two")
    (said,) = caplog.messages
    assert "events.jsonl cannot be written" in said
    assert elsewhere.read_text() == "mine\n"


def test_events_are_written_again_once_they_can_be(tmp_path: Path) -> None:
    file = tmp_path / EVENTS_FILE
    file.mkdir()
    with EventLog(tmp_path) as log:
        log(Event("note", "lost", 0, 1))
        file.rmdir()
        log(Event("note", "kept", 0, 1))
    assert [event["text"] for event in read_events(tmp_path)] == ["kept"]


def test_what_is_private_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = "key /home/me/lab_key was refused"
    with (
        caplog.at_level(logging.DEBUG, logger="edgedeploy"),
        pytest.raises(SpecError),
        EventLog(tmp_path, private=("/home/me/lab_key",)) as log,
    ):
        log.start("squares", {"out": "/home/me/lab_key.study", "boards": ["/home/me/lab_key"], "trials": 3})
        log(Event("note", said, 0, 1, best=said))
        raise SpecError("board", said)
    assert "lab_key" not in (tmp_path / EVENTS_FILE).read_text() + caplog.text
    start, *events = read_events(tmp_path)
    assert start["options"] == {"out": "(left out).study", "boards": ["(left out)"], "trials": 3}
    assert [event["text"] for event in events] == [
        "key (left out) was refused",
        "SpecError: board: key (left out) was refused",
    ]


def test_threads_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path)

    def work(number: int) -> None:
        for step in range(100):
            log(Event("phase", f"{number}-{step} " + "x" * 500, 0, 1))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / EVENTS_FILE).read_text().splitlines()
    assert sorted(json.loads(line)["text"].split()[0] for line in lines) == sorted(
        f"{number}-{step}" for number in range(4) for step in range(100)
    )


WRITER = """
import sys
from pathlib import Path
from edgedeploy import Event
from edgedeploy.study.events import EventLog
log = EventLog(Path(sys.argv[1]))
for number in range(10**9):
    log(Event("phase", f"{number} " + "x" * 2000, 0, 1))
    if number == 50:
        print("enough", flush=True)
"""


def test_a_kill_leaves_every_line_before_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "enough\n"
    process.kill()
    process.communicate(timeout=30)
    numbers = [int(event["text"].split()[0]) for event in read_events(tmp_path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 50
    run(tmp_path, "after it")
    assert kinds(tmp_path)[-3:] == ["start", "trial", "end"]
