"""A run of a real agent on this host, recorded, and a board that answers what was recorded."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import ROOT

sys.path.insert(0, str(ROOT / "tests"))  # board_kit

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.local import LocalTransport
from edgedeploy.interfaces.board import Completed
from edgedeploy.records.job import Job, MeasurePlan


@dataclass
class Recording:
    """What a real agent on this host answered: the output of each command, the lines of its lease, the files of a job."""

    job: Job
    answers: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Without the job, which is the same every time."""
        held = {"answers": self.answers, "files": self.files}
        packed = {
            kind: {name: b64encode(data).decode() for name, data in group.items()} for kind, group in held.items()
        }
        path.write_text(json.dumps(packed))

    @classmethod
    def load(cls, path: Path, folder: Path) -> Recording:
        packed = json.loads(path.read_text())
        held = {kind: {name: b64decode(text) for name, text in group.items()} for kind, group in packed.items()}
        return cls(_job(folder), **held)


class Recorder(LocalTransport):
    """Keeps the last answer of each command, and the files that were read."""

    recording: Recording

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed:
        done = super().run(argv, timeout_s=timeout_s, stdin=stdin)
        command = command_of(argv)
        missing = command == "start" and command not in self.recording.answers  # the blobs are not there yet
        self.recording.answers["start, blobs missing" if missing else command] = done.stdout
        return done

    def start(self, argv: Sequence[str]) -> Any:
        process, recording = super().start(argv), self.recording

        class Process:
            write, close = process.write, process.close

            def read_line(self, timeout_s: float) -> str:
                line = process.read_line(timeout_s)
                recording.answers.setdefault("lease", line.encode() + b"\n")
                return line

        return Process()

    def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
        data = super().read_bytes(remote, timeout_s=timeout_s, limit_bytes=limit_bytes)
        if data:
            self.recording.files[Path(remote).name] = data
        return data

    def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None:
        super().get(remote, destination, timeout_s=timeout_s, limit_bytes=limit_bytes)
        self.recording.files[Path(remote).name] = destination.read_bytes()


def command_of(argv: Sequence[str]) -> str:
    known = ("probe", "commit", "start", "status")
    return next((word for word in argv if word in known), "install")


def record(folder: Path) -> Recording:
    """A run of a tiny network on this host, with every scenario; some seconds."""
    from board_kit import MACHINE_WAIT_S

    recording = Recording(_job(folder))
    transport = type("Recording", (Recorder,), {"recording": recording})
    options = BoardOptions(python=sys.executable, root=str(folder / "root"), wait_s=MACHINE_WAIT_S)
    board = RemoteBoard("b", transport, provenance="measured", options=options)
    board.probe()
    (folder / "outputs").mkdir()
    with board.session() as session:
        session.measure(recording.job, folder / "outputs")
        first = recording.files["status.json"]
        session._call("status", Path(next((folder / "root" / "jobs").iterdir())).name)
        recording.files["status.json"] = first
    return recording


def _job(folder: Path) -> Job:
    from board_kit import SHORT_SCENARIOS, make_payload

    plan = MeasurePlan(
        8, warmup=1, block=4, cold_starts=2, scenarios=SHORT_SCENARIOS, profile_runs=2, time_limit_s=300.0
    )
    return Job(make_payload(folder / "candidate"), make_payload(folder / "baseline"), plan)


class Replay:
    """A transport that answers what was recorded, and damaged bytes in one place."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.damage("", b"")

    def damage(self, what: str, data: bytes) -> None:
        answers, files = self._recording.answers, self._recording.files
        self._answers = {**answers, what: data} if what in answers else answers
        self._files = {**files, what: data} if what in files else files
        self._started, self._lines = False, iter((self._answers["lease"].partition(b"\n")[0], b""))
        if what == "status":  # which is asked for when the file has not changed
            self._files = {**files, "status.json": b'{"state": "running"}'}

    def also(self, name: str, data: bytes) -> None:
        self._files = {**self._files, name: data}

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed:
        command = command_of(argv)
        if command == "start" and not self._started and "start, blobs missing" in self._answers:
            self._started, command = True, "start, blobs missing"
        return Completed(0, self._answers[command], b"")

    def start(self, argv: Sequence[str]) -> Replay:
        return self

    def read_line(self, timeout_s: float) -> str:
        return next(self._lines, b"").decode("utf-8", "replace")

    def write(self, data: bytes) -> None:
        pass

    def put(self, source: Path, remote: str, *, timeout_s: float) -> None:
        pass

    def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None:
        destination.write_bytes(self._files["outputs.npz"])

    def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
        return self._files[Path(remote).name]

    def write_bytes(self, remote: str, data: bytes, *, timeout_s: float) -> None:
        pass

    def close(self) -> None:
        pass
