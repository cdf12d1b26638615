"""The hand-over of a job from the command that starts it to the process that supervises it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedeploy.runtime.agent import supervisor
from edgedeploy.runtime.agent.supervisor import job_status
from edgedeploy.runtime.files import Root, read_json, write_json
from edgedeploy.runtime.processes import boot_id, end_all_with_argument, identity
from edgedeploy.runtime.wire.job import JobSpec, MeasurePlan, Side
from edgedeploy.runtime.wire.serde import to_json

JOB = "cd" * 16
TOKEN = 3

STARTS = """
import json, os, sys, time
from pathlib import Path
from edgedeploy.runtime.agent import supervisor
from edgedeploy.runtime.files import Root

command, write = os.getpid(), supervisor.Status.write

def slow(self, *said):
    if os.getpid() != command:
        time.sleep(1.0)
    write(self, *said)

supervisor.Status.write = slow
supervisor._supervise = lambda *given: time.sleep(60)
print(supervisor.start(Root(Path(sys.argv[1])), sys.argv[2], json.load(sys.stdin), {})["started"])
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A board that is leased to this process."""
    root = Root(tmp_path / "root")
    root.jobs.mkdir(parents=True)
    write_json(root.lease, {"token": TOKEN, "boot_id": boot_id(), "holder": identity(os.getpid())})
    yield root
    end_all_with_argument(JOB)


def spec() -> object:
    side = Side(target="onnxruntime", entry="m", settings={}, threads=1, files={}, inputs="0" * 64)
    return to_json(JobSpec(JOB, TOKEN, MeasurePlan(), side, None, busy_wait_s=1.0, orphan_grace_s=1.0))


def test_a_command_ends_when_the_file_names_who_supervises(root: Root) -> None:
    """Between the command's end and the supervisor's first word, however late, the job had counted as dead."""
    argv = [sys.executable, "-c", STARTS, str(root.folder), JOB]
    done = subprocess.run(argv, input=json.dumps(spec()), capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert job_status(root, JOB)["state"] == "waiting"


def test_a_job_that_was_taken_over_between_two_looks_lives(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.jobs / JOB).mkdir()
    path = root.jobs / JOB / "status.json"
    gone = subprocess.Popen(["true"])
    gone.wait()
    before = {"state": "waiting", "supervisor": {**identity(os.getpid()), "pid": gone.pid}}
    after = {"state": "waiting", "supervisor": identity(os.getpid())}
    write_json(path, before)

    def read(place: Path) -> object:
        found = read_json(place)
        write_json(path, after)
        return found

    monkeypatch.setattr(supervisor, "read_json", read)
    assert job_status(root, JOB) == after
    monkeypatch.undo()
    write_json(path, before)
    assert job_status(root, JOB)["cause"] == "supervisor_died"
