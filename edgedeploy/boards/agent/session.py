"""A board that is held: jobs go in, raw series come back."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from edgedeploy.boards.agent import answers
from edgedeploy.boards.agent.answers import Started, Status, started
from edgedeploy.boards.agent.client import COMMAND_TIMEOUT_S, AgentClient, error_of
from edgedeploy.boards.agent.held import Asked, Odd, check_outputs, check_result, result_limit_bytes
from edgedeploy.boards.agent.lease import SILENCE_S, Lease
from edgedeploy.errors import BoardError, CommandFailed, DamagedFile, Unreachable
from edgedeploy.files import parsed
from edgedeploy.interfaces.board import Transport
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.records.board import BoardInfo, LoadedBundle
from edgedeploy.records.job import Job, RawRun
from edgedeploy.records.metrics import Clock
from edgedeploy.runtime.agent.job import FINAL_STATES
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.wire.job import JobSpec, Side
from edgedeploy.runtime.wire.result import AgentResult, OutputsFile
from edgedeploy.runtime.wire.serde import WireError, from_json, to_json
from edgedeploy.spec.boards import DEFAULT_ROOT

POLL_FIRST_S: Final = 0.05
POLL_LAST_S: Final = 0.5
SLOWEST_LINK_BYTES_PER_S: Final = 200_000
"""Transfers get the time that a link this slow needs, beside the time of a command."""

NEVER_S: Final = 1e7
"""Timeout on a board whose clock counts instructions: that clock jumps ahead while the board waits, for its disk too, so a
real timeout would expire at once. This host's own limits hold, nobody else can hold such a board, and it ends with its
session."""

LOAD_LIMIT_S: Final = 900.0
"""For a bundle beside its upload: TensorRT builds an engine first, and emulated boards are slow."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class BoardOptions:
    """How to treat a board. ``python`` and ``root`` are on the board; ``wait_s`` is how long to wait until it is free,
    ``reconnects`` how often a lost connection is taken up again within one session, ``unchanged_s`` how long a job's status
    may stay as it is before the agent is asked whether its supervisor lives, ``overdue_s`` how long past all of its limits
    it may go on before it is given up, ``power_mode`` what is set for each run. ``silence_s`` and ``orphan_grace_s`` pass
    on the board's clock: how long it waits for a sign of its holder, and how long a run goes on without one.
    ``power_cycle`` is a command on this host that turns the board off and on. ``sessions`` are those of other packages'
    targets: the agent takes them along. ``clock`` is what the board's clock is worth: times on a ``virtual`` one are not
    held against this host's. ``cores`` are those of the board's machine that are leased, empty for all of it."""

    python: str = "python3"
    root: str = DEFAULT_ROOT
    wait_s: float = 60.0
    reconnects: int = 3
    reconnect_pause_s: float = 0.5
    command_timeout_s: float = COMMAND_TIMEOUT_S
    silence_s: float = SILENCE_S
    orphan_grace_s: float = 15.0
    unchanged_s: float = 10.0
    power_mode: tuple[tuple[str, str], ...] = ()
    overdue_s: float = 60.0
    power_cycle: tuple[str, ...] = ()
    sessions: tuple[PackedSession, ...] = ()
    clock: Clock = "wall"
    cores: tuple[int, ...] = ()


class Link:
    """The connection and the lease of one session, made again when the connection is lost."""

    def __init__(
        self, connect: Callable[[], Transport], install: Callable[[Transport], AgentClient], options: BoardOptions
    ) -> None:
        self._connect = connect
        self._install = install
        self._options = options
        self._reconnects_left = options.reconnects
        self._open(resume=None)

    def _open(self, resume: int | None) -> None:
        self.transport = self._connect()
        try:
            self.agent = self._install(self.transport)
            options = self._options
            self.lease = Lease(self.agent, wait_s=options.wait_s, resume=resume, silence_s=options.silence_s)
        except BaseException:
            self.transport.close()
            raise

    def retrying(self, step: Callable[[], Answer]) -> Answer:
        """``step``, and again after a lost connection is back. A step has to be one that may run twice.

        Raises what the step raises; ``Unreachable`` when the connection does not come back, ``Busy`` when somebody else
        took the board meanwhile, ``CommandFailed`` when the board has rebooted.
        """
        while True:
            try:
                return step()
            except Unreachable as exc:
                self._reopen(exc)

    def _reopen(self, lost: Unreachable) -> None:
        token = self.lease.token
        self._drop()
        while self._reconnects_left > 0:
            self._reconnects_left -= 1
            time.sleep(self._options.reconnect_pause_s)
            try:
                self._open(resume=token)
            except Unreachable as exc:
                lost = exc
                continue
            return
        raise lost

    def _drop(self) -> None:
        self.lease.drop()
        self.transport.close()

    def close(self) -> None:
        self.lease.release()
        self.transport.close()


class RemoteSession:
    """A board that is connected and exclusively held. ``info`` is what its probe found."""

    def __init__(self, info: BoardInfo, link: Link, options: BoardOptions, *, wait_ns: int) -> None:
        self.info = info
        self._link = link
        self._options = options
        self._wait_ns = wait_ns

    def measure(self, job: Job, collect_into: Path) -> RawRun:
        """Upload what is missing, run the agent, collect. Raises ``BoardError`` or ``MeasurementError``.

        A lost connection is taken up again: the job is found by its id, never started twice. ``collect_into`` is a
        folder that exists; ``outputs.npz`` is written there.
        """
        clock = time.monotonic_ns
        started_ns = clock()
        self._check_runtimes(job)
        blobs = job_blobs(job)
        job_id = uuid.uuid4().hex
        spec = job_spec(job, job_id, self._link.lease.token, blobs, self._options)
        self._start(job_id, json.dumps(to_json(spec)).encode(), blobs)
        uploaded_ns = clock()
        status = self._wait(job, job_id, started_ns)
        ended_ns = clock()
        asked = Asked(job, self.info.cores, self.info.memory_bytes, self._since(started_ns))
        result, outputs = self._collect(asked, job_id, collect_into)
        phases_ns = {
            "upload": uploaded_ns - started_ns,
            "run": status.run_ns,
            "wait": self._wait_ns + status.wait_ns,
            "collect": clock() - ended_ns,
        }
        self._wait_ns = 0
        return RawRun(**{**result.series(), "phases_ns": phases_ns}, outputs=outputs)

    def load_bundle(self, archive: Path, trust: Path | None) -> LoadedBundle:
        """See :class:`~edgedeploy.interfaces.board.LoadsBundles`. Both files become blobs of the agent, which it removes
        when it needs their room."""
        files = {sha256_file(path): path for path in (archive, trust) if path is not None}
        timeout_s = self._transfer_timeout_s(archive.stat().st_size)
        places = {path: f"{self._link.agent.root}/blobs/{sha256}" for sha256, path in files.items()}
        key = ("--unsigned",) if trust is None else ("--trust", places[trust])

        def once() -> dict[str, Any]:
            self._upload(files, timeout_s)
            return self._link.agent.product("run", places[archive], *key, timeout_s=timeout_s + LOAD_LIMIT_S)

        return answers.loaded(f"board {self.info.name!r}: load a bundle", self._link.retrying(once))

    def _since(self, started_ns: int) -> int | None:
        """How long this host has waited, for what the board says it took; None where its clock is another world's."""
        return None if self._options.clock == "virtual" else time.monotonic_ns() - started_ns

    def _check_runtimes(self, job: Job) -> None:
        """Nothing is uploaded for a runtime that the probe did not find, or found to be of another architecture."""
        for payload in job.sides.values():
            target = payload.artifact.target
            if target not in self.info.runtimes:
                found = "; ".join((f"no runtime for {target!r}", *self.info.notes))
                raise error_of(f"board {self.info.name!r}: run {target}", "runtime_missing", found)

    def _call(self, *arguments: str, stdin: bytes = b"", timeout_s: float | None = None) -> dict[str, Any]:
        return self._link.agent.call(*arguments, stdin=stdin, timeout_s=timeout_s)

    def _transfer_timeout_s(self, size_bytes: int) -> float:
        return self._options.command_timeout_s + size_bytes / SLOWEST_LINK_BYTES_PER_S

    def _start(self, job_id: str, spec: bytes, blobs: Mapping[Path, Blob]) -> None:
        """Start the job; where the board lacks files of it, bring them and start it then. One command on a board that has
        them all: each costs it a process. Raises ``CommandFailed`` when they do not fit, or do not stay."""
        sources = {blob.sha256: path for path, blob in blobs.items()}
        pairs = [f"{blob.sha256}:{blob.size_bytes}" for blob in blobs.values()]
        timeout_s = self._transfer_timeout_s(sum(blob.size_bytes for blob in blobs.values()))
        asked = f"board {self.info.name!r}: upload"

        wanted = {blob.sha256: blob.size_bytes for blob in blobs.values()}

        def start() -> Started:
            return started(asked, self._call("start", job_id, *pairs, stdin=spec, timeout_s=timeout_s), wanted)

        def check_room(answer: Started) -> None:
            if answer.missing and answer.needed_bytes > answer.free_bytes:
                found = f"disk_full: {answer.needed_bytes} bytes are needed, {answer.free_bytes} are free"
                raise CommandFailed(asked, found, f"Free space under {self._link.agent.root} on the board")

        def once() -> None:
            answer = start()
            if not answer.missing:
                return
            check_room(answer)
            try:
                self._upload({sha256: sources[sha256] for sha256 in answer.missing}, timeout_s)
            except CommandFailed:  # SFTP has no word for a full disk: whether it is one is asked
                check_room(start())
                raise
            answer = start()
            if answer.missing:
                found = f"uploaded, and not there: {', '.join(answer.missing)}"
                raise CommandFailed(asked, found, "Check the board's disk")

        self._link.retrying(once)

    def _upload(self, sources: Mapping[str, Path], timeout_s: float) -> None:
        for sha256, path in sources.items():
            if sha256_file(path) != sha256:
                found = "it is not the file that was made: this host's disk, its memory or another program changed it"
                remedy = "It is made anew; if that repeats, check this host's disk"
                raise DamagedFile(f"send {path} to a board", found, remedy)
        parts = {sha256: f".part-{uuid.uuid4().hex}" for sha256 in sources}
        for sha256, part in parts.items():
            self._link.transport.put(sources[sha256], f"{self._link.agent.root}/blobs/{part}", timeout_s=timeout_s)
        self._call("commit", *(f"{part}:{sha256}" for sha256, part in parts.items()), timeout_s=timeout_s)

    def _wait(self, job: Job, job_id: str, started_ns: int) -> Status:
        """Poll the status file until the job ended well; raises its failure. One that is past every limit is given up:
        the next session ends it."""
        path = f"{self._link.agent.root}/jobs/{job_id}/status.json"
        asked = f"board {self.info.name!r}: end of a run"
        pause_s = POLL_FIRST_S
        last, changed_s = b"", time.monotonic()
        limit_s = job.plan.time_limit_s + self._options.wait_s + self._options.overdue_s
        give_up_s = time.monotonic() + limit_s
        while True:
            time.sleep(pause_s)
            pause_s = min(POLL_LAST_S, pause_s * 1.5)
            text = self._link.retrying(self._reader(path)) or b""
            if text != last:
                last, changed_s = text, time.monotonic()
            found = self._read(text, asked) if text else {"state": "absent"}
            status = answers.status(asked, found, self._since(started_ns))
            if status.state not in FINAL_STATES and time.monotonic() - changed_s > self._options.unchanged_s:
                found = self._link.retrying(lambda: self._call("status", job_id))
                status = answers.status(asked, found, self._since(started_ns))
                changed_s = time.monotonic()
            if status.state == "done":
                return status
            if status.state == "failed":
                raise self._failure(job, job_id, status)
            if status.state not in ("absent", "waiting", "running"):
                raise CommandFailed(asked, f"state {status.state[:80]!r}", "Install one version of edgedeploy")
            if time.monotonic() > give_up_s:
                raise CommandFailed(asked, f"overdue: it says {status.state!r} after {limit_s:g} s", "Run it again")

    def _read(self, text: bytes, asked: str) -> dict[str, Any]:
        """What the agent wrote; raises ``CommandFailed`` with the beginning of what is not its JSON."""
        try:
            return parsed(text)
        except (ValueError, RecursionError) as exc:
            found = f"the board's file begins {text[:200]!r}: {answers.plain(str(exc))[:200]}"
            raise CommandFailed(asked, found, "Check the board's disk") from exc

    def _reader(self, path: str, limit_bytes: int = 1 << 20) -> Callable[[], bytes | None]:
        timeout_s = self._options.command_timeout_s
        return lambda: self._link.transport.read_bytes(path, timeout_s=timeout_s, limit_bytes=limit_bytes)

    def _failure(self, job: Job, job_id: str, status: Status) -> Exception:
        asked = f"board {self.info.name!r}: run {job.candidate.artifact.target} {job.candidate.artifact.precision}"
        message, cause = status.message, status.cause or "internal"
        if cause in ("internal", "worker_crashed", "supervisor_died"):
            with contextlib.suppress(BoardError):
                found = answers.read(Status, asked, self._call("status", job_id))
                message += f"; its log ends: {answers.plain(found.log)}"
        return error_of(asked, cause, message, status.side or "candidate")

    def _collect(self, asked: Asked, job_id: str, folder: Path) -> tuple[AgentResult, Path | None]:
        """The job's result, held against what was asked, and its outputs, checked against the hash that the board
        computed."""
        what = f"board {self.info.name!r}: collect"
        job_folder = f"{self._link.agent.root}/jobs/{job_id}"
        limit_bytes = result_limit_bytes(asked.plan)
        text = self._link.retrying(self._reader(f"{job_folder}/result.json", limit_bytes))
        if text is None:
            raise CommandFailed(what, "the job's result is gone", "Run it again")
        try:
            result = from_json(AgentResult, self._read(text, what))
            check_result(result, asked)
        except (WireError, Odd) as exc:
            found = f"{exc} in a result that begins {text[:200]!r}"
            raise CommandFailed(what, found, "Keep it; run it again") from exc
        if result.outputs is None:
            return result, None
        path = self._fetch(what, f"{job_folder}/outputs.npz", folder / "outputs.npz", result.outputs)
        try:
            check_outputs(path, asked.job)
        except Odd as exc:
            raise CommandFailed(what, str(exc), "Keep it; run it again") from exc
        return result, path

    def _fetch(self, what: str, remote: str, path: Path, outputs: OutputsFile) -> Path:
        size_bytes = outputs.size_bytes
        timeout_s = self._transfer_timeout_s(size_bytes)
        for _ in range(2):
            self._link.retrying(
                lambda: self._link.transport.get(remote, path, timeout_s=timeout_s, limit_bytes=size_bytes)
            )
            if sha256_file(path) == outputs.sha256:
                return path
        raise CommandFailed(what, "the outputs arrive damaged twice", "Check the network")


@dataclass(frozen=True)
class Blob:
    sha256: str
    size_bytes: int


def job_blobs(job: Job) -> dict[Path, Blob]:
    """Every file of the job by its path here. Artifact files were hashed when built; inputs are hashed now."""
    blobs: dict[Path, Blob] = {}
    for payload in job.sides.values():
        for file in payload.artifact.files:
            blobs[payload.folder / file.name] = Blob(file.sha256, file.size_bytes)
        if payload.inputs not in blobs:
            blobs[payload.inputs] = Blob(sha256_file(payload.inputs), payload.inputs.stat().st_size)
        if payload.frames is not None:
            blobs[payload.frames] = Blob(sha256_file(payload.frames), payload.frames.stat().st_size)
    return blobs


def job_spec(job: Job, job_id: str, token: int, blobs: Mapping[Path, Blob], options: BoardOptions) -> JobSpec:
    """The job as the agent is given it. A power mode of the plan goes before the board's own."""
    sides = {
        name: Side(
            target=payload.artifact.target,
            entry=payload.artifact.entry,
            settings=dict(payload.artifact.settings),
            threads=payload.threads,
            files={file.name: file.sha256 for file in payload.artifact.files},
            inputs=blobs[payload.inputs].sha256,
            states=dict(payload.states),
            frames=blobs[payload.frames].sha256 if payload.frames is not None else "",
        )
        for name, payload in job.sides.items()
    }
    power_mode = {**dict(options.power_mode), **dict(job.plan.power_mode)}
    return JobSpec(
        job_id=job_id,
        token=token,
        plan=replace(
            job.plan,
            power_mode=tuple(power_mode.items()),
            time_limit_s=NEVER_S if options.clock == "virtual" else job.plan.time_limit_s,
        ),
        candidate=sides["candidate"],
        baseline=sides.get("baseline"),
        busy_wait_s=options.wait_s,
        orphan_grace_s=options.orphan_grace_s,
    )
