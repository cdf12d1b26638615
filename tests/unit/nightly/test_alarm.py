"""The message of a night: at most one, never lost silently."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import made_up_night as made_up
import pytest
from fault_kit import wait_for

from edgedeploy.nightly.results import alarm, write_results
from edgedeploy.nightly.results.alarm import environment, message, tell
from edgedeploy.records.night import AlarmTold, Night

REPO = Path(__file__).resolve().parents[3]
NIGHT = made_up.every_outcome()


def writing(to: Path, *, code: int = 0, say: str = "") -> list[str]:
    """A command that appends what it is told to a file."""
    program = (
        "import sys; text = sys.stdin.read(); open(sys.argv[1], 'a').write(text + '<end>'); "
        "sys.stderr.write(sys.argv[3]); sys.exit(int(sys.argv[2]))"
    )
    return [sys.executable, "-c", program, str(to), str(code), say]


def test_the_message_names_each_regression_and_where_the_pages_are(tmp_path: Path) -> None:
    told = tell(NIGHT, writing(tmp_path / "said"), tmp_path, ["/srv/lab.html"])
    assert told == AlarmTold("sent")
    said = (tmp_path / "said").read_text()
    assert said.startswith("edgedeploy nightly, imaging, 2026-11-29: 2 regressions, 1 changed artifact")
    for words in (*NIGHT.alarms, "artifact: nerve on cart", "board: vessels on gone", "/srv/lab.html"):
        assert words in said, words
    assert said.count("12.3 %") == 1


def test_a_night_has_one_message_also_when_it_goes_on(tmp_path: Path) -> None:
    command = writing(tmp_path / "said")
    first = write_results(NIGHT, (), tmp_path, command)
    again = write_results(NIGHT, (), tmp_path, command)
    assert (first.night.told, again.night.told) == (AlarmTold("sent"), AlarmTold("earlier"))
    assert (tmp_path / "said").read_text().count("<end>") == 1
    kept = Night.from_json(json.loads(first.night_json.read_text()))
    assert kept.told == AlarmTold("earlier")
    tomorrow = made_up.every_outcome("2026-11-30")
    assert write_results(tomorrow, (), tmp_path, command).night.told == AlarmTold("sent")


def test_nothing_is_sent_when_nothing_regressed(tmp_path: Path) -> None:
    assert tell(made_up.night(), writing(tmp_path / "said"), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_failing_command_is_told_everywhere(tmp_path: Path) -> None:
    written = write_results(NIGHT, (), tmp_path, writing(tmp_path / "said", code=7, say="relay\nsays no"))
    why = f"{Path(sys.executable).name} ended with code 7: relay says no"
    assert written.night.told == AlarmTold("failed", why)
    assert json.loads(written.night_json.read_text())["told"] == {"state": "failed", "detail": why}
    assert written.exit_code == 1
    assert f"NOBODY WAS TOLD: the alarm command failed: {why}" in written.lines()
    for path in (written.junit, written.lab, written.summary):
        assert "says no" in path.read_text(), path
    again = write_results(NIGHT, (), tmp_path, writing(tmp_path / "said"))
    assert again.night.told == AlarmTold("failed", why), "it may have sent what it had: rather none than two"


def test_a_command_that_is_not_there_is_told_and_started_once_it_is(tmp_path: Path) -> None:
    told = tell(NIGHT, [str(tmp_path / "no-such-program")], tmp_path)
    assert told is not None and told.state == "failed" and "No such file" in told.detail
    assert tell(NIGHT, writing(tmp_path / "said"), tmp_path) == AlarmTold("sent")


def test_a_command_without_end_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child, usual = tmp_path / "child", subprocess.Popen.wait

    def over(process: subprocess.Popen[bytes], limit_s: float | None = None) -> int:
        """SIMULATION of time: the limit has passed as soon as the command has a child."""
        if limit_s is None:
            return usual(process)
        wait_for("the command's child", lambda: child.exists() and child.read_text().endswith("\n"))
        raise subprocess.TimeoutExpired(process.args, limit_s)

    monkeypatch.setattr(subprocess.Popen, "wait", over)
    told = tell(NIGHT, ["/bin/sh", "-c", f"sleep 3000 & echo $! > {child}; wait"], tmp_path)
    assert told == AlarmTold("failed", "sh did not end within 60 s")
    wait_for("the child to end", lambda: not _runs(int(child.read_text())))


def test_a_command_past_its_limit_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "LIMIT_S", 0.6)
    assert tell(NIGHT, ["/bin/sh", "-c", "exec sleep 3000"], tmp_path) == AlarmTold(
        "failed", "sh did not end within 1 s"
    )


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_command_that_reads_nothing_and_talks_much_is_taken(tmp_path: Path) -> None:
    assert tell(NIGHT, ["/bin/sh", "-c", "head -c 3000000 /dev/zero >&2"], tmp_path) == AlarmTold("sent")


@pytest.mark.fault(39)
def test_the_environment_is_small() -> None:
    whole = {
        "PATH": "/bin",
        "HOME": "/root",
        "GITLAB_TOKEN": "secret",
        "PGPASSWORD": "secret",
        "https_proxy": "http://p",
    }
    assert environment(whole) == {"PATH": "/bin", "HOME": "/root", "https_proxy": "http://p"}


KILLED = """
import sys
sys.path.insert(0, "tests")
import made_up_night
from pathlib import Path
from edgedeploy.nightly.results import write_results
write_results(made_up_night.every_outcome(), (), Path(sys.argv[1]), sys.argv[2:])
"""


@pytest.mark.fault(4)
def test_killed_while_it_sends_it_sends_nothing_again(tmp_path: Path) -> None:
    started, sending = tmp_path / "started", tmp_path / "sending"
    program = f"echo once >> {started}; echo $$ > {sending}; exec sleep 3000"
    command: Sequence[str] = ["/bin/sh", "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), *command], cwd=REPO, env=environment)
    wait_for(
        "it to send", lambda: process.poll() is not None or (sending.exists() and sending.read_text()[-1:] == "\n")
    )
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.kill(int(sending.read_text()), signal.SIGKILL)
    written = write_results(NIGHT, (), tmp_path, command)
    assert started.read_text() == "once\n"
    assert written.night.told is not None and written.night.told.state == "unknown"
    assert any(line.startswith("IT IS NOT KNOWN WHETHER ANYBODY WAS TOLD") for line in written.lines())
    assert written.exit_code == 1


def test_a_marker_that_cannot_be_read_was_begun(tmp_path: Path) -> None:
    (tmp_path / "night-2026-11-29.alarm").write_bytes(b"")
    told = tell(NIGHT, writing(tmp_path / "said"), tmp_path)
    assert told is not None and told.state == "unknown"
    assert not (tmp_path / "said").exists()


def test_a_sentence_stays_one_line() -> None:
    night = made_up.night(alarms=("one\nBcc: all@example.org\n",))
    assert "- one Bcc: all@example.org\n" in message(night, ())


def test_what_a_command_says_does_not_steer_a_terminal(tmp_path: Path) -> None:
    told = tell(NIGHT, ["sh", "-c", r"printf 'no\033[31m\000relay' >&2; exit 1"], tmp_path)
    assert told is not None and told.detail == "sh ended with code 1: no [31m relay"
