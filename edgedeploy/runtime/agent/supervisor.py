"""A job on its own: detached from whoever started it, bounded in time, tied to the lease, its status file the truth."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.runtime.agent.blobs import verify
from edgedeploy.runtime.agent.claim import Claim
from edgedeploy.runtime.agent.job import FINAL_STATES, materialise
from edgedeploy.runtime.agent.lease import check_token
from edgedeploy.runtime.faults import RuntimeFault, from_exception
from edgedeploy.runtime.files import Root, read_json, write_json
from edgedeploy.runtime.processes import boot_id, identity, is_alive
from edgedeploy.runtime.wire.job import JobSpec
from edgedeploy.runtime.wire.serde import to_json

if TYPE_CHECKING:
    from edgedeploy.runtime.agent.measure import Workers

WATCH_PERIOD_S = 1.0
END_PATIENCE_S = 5.0
"""How long a killed process may take to be gone before it counts as hung in the kernel."""


def start(root: Root, job_id: str, spec: Any, wanted: Mapping[str, int], cores: Sequence[int] = ()) -> dict[str, Any]:
    """Start the job in the background, once: a second call with its id changes nothing. Returns at once. ``cores`` are those
    that are leased for it, which this process is bound to.

    ``wanted`` (hash -> size in bytes) are the blobs that it needs. Nothing starts while one of them is ``missing``; the
    answer then has what :func:`~edgedeploy.runtime.agent.blobs.verify` says. Raises :class:`RuntimeFault`:
    ``stale_token`` when the lease is not the job's, ``bad_job``.
    """
    job = JobSpec.from_json(spec)
    if job.job_id != job_id:
        raise RuntimeFault("bad_job", f"job {job.job_id!r} was started as {job_id!r}")
    check_token(root, job.token)
    folder = root.job(job_id)
    answer = {"job": job_id, "started": False, "missing": []}
    if folder.exists():
        return answer
    room = verify(root, wanted)
    if room["missing"]:
        return {**answer, **room}
    root.jobs.mkdir(exist_ok=True)
    folder.mkdir()
    write_json(folder / "job.json", spec)
    status = Status(folder, job)
    status.write("waiting")
    if _detach(folder, status):
        _supervise(root, job, folder, status, cores)
        os._exit(0)
    return {**answer, "started": True}


def _detach(folder: Path, status: Status) -> bool:
    """Fork twice into a session of its own. True in the new process, whose output goes to the job's log.

    The other comes back once the status file names the new one: a job whose file names a command that has ended would be
    taken for dead.
    """
    sys.stdout.flush()
    named, names = os.pipe()
    child = os.fork()
    if child:
        os.close(names)
        os.waitpid(child, 0)
        os.read(named, 1)  # until nobody holds the other end
        os.close(named)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir("/")
    with suppress(OSError):  # a full disk is told when it is written again
        status.write("waiting")
    os.close(named)
    os.close(names)
    return True


class Status:
    """Writes ``status.json``: state (waiting, running, done, failed), cause, message and side of a failure, who
    supervises."""

    def __init__(self, folder: Path, job: JobSpec) -> None:
        self._path = folder / "status.json"
        self._token = job.token
        self._created_ns = time.monotonic_ns()
        self._running_ns: int | None = None

    def write(self, state: str, cause: str | None = None, message: str = "", side: str = "") -> None:
        now_ns = time.monotonic_ns()
        if state == "running":
            self._running_ns = now_ns
        began_ns = now_ns if self._running_ns is None else self._running_ns
        value = {
            "state": state,
            "cause": cause,
            "message": message,
            "side": side,
            "token": self._token,
            "supervisor": identity(os.getpid()),
            "wait_ns": began_ns - self._created_ns,
            "run_ns": now_ns - began_ns,
        }
        write_json(self._path, value)


def _supervise(root: Root, job: JobSpec, folder: Path, status: Status, cores: Sequence[int]) -> None:
    """In the detached process: what measures is imported here, while the host has its answer already."""
    from edgedeploy.runtime.agent.measure import Workers, run_job
    from edgedeploy.runtime.sensors.powermode import PowerModes

    with (folder / "log").open("ab") as log:
        workers = Workers(folder, job.job_id, log, job.plan.memory_limit_bytes)
        watch = Watch(root, job, workers, status)
        try:
            status.write("waiting")
            watch.start()
            with alone_on_this_machine(job, watch, cores):
                status.write("running")
                watch.limit_time(job.plan.time_limit_s)
                materialise(root, job, folder)
                with PowerModes(root.folder).held(dict(job.plan.power_mode)) as set_up:
                    result = run_job(job, folder, workers, cores)
                result = replace(result, environment={**result.environment, "power_mode_asked": set_up})
                write_json(folder / "result.json", to_json(result))
            watch.raise_verdict()
            status.write("done")
        except Exception as exc:  # nobody else would tell: the process has no parent that listens
            workers.end_all()
            _discard_files(job, folder)  # after that even a full disk has room for the status and the log
            fault = _told_apart(watch.verdict, from_exception(exc, "internal"))
            status.write("failed", fault.cause, fault.message, fault.side)
            traceback.print_exc()
        finally:
            workers.end_all()


def _told_apart(verdict: RuntimeFault | None, found: RuntimeFault) -> RuntimeFault:
    """The watch's verdict goes first; but a runtime that hangs while it is imported is no artifact that takes too long."""
    if verdict is None:
        return found
    if verdict.cause == "time_limit" and found.cause == "runtime_broken":
        return RuntimeFault(found.cause, f"{found.message}; {verdict.message}", found.side)
    return verdict


def _discard_files(job: JobSpec, folder: Path) -> None:
    for side in job.sides:
        shutil.rmtree(folder / side, ignore_errors=True)
    for path in folder.glob("output*"):
        path.unlink()


class Watch(threading.Thread):
    """Ends the job's workers when its time is over or its lease is gone; ``verdict`` says which.

    A worker that cannot be killed (it hangs in the kernel) would keep the supervisor waiting for its answer for ever: then
    this thread writes the last word and ends the process itself.
    """

    def __init__(self, root: Root, job: JobSpec, workers: Workers, status: Status) -> None:
        super().__init__(daemon=True)
        self.verdict: RuntimeFault | None = None
        self._root = root
        self._job = job
        self._workers = workers
        self._status = status
        self._deadline_s: float | None = None
        self._limit_s = 0.0
        self._held_at_s = time.monotonic()

    def limit_time(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._deadline_s = time.monotonic() + limit_s

    def run(self) -> None:
        while self.verdict is None:
            self.verdict = self._judge()
            if self.verdict is None:
                time.sleep(self._pause_s())
        self._workers.end_all()
        hung = self._workers.left_after(END_PATIENCE_S)
        if hung:
            self._status.write("failed", "hung", f"{self.verdict.message}; processes {hung} cannot be ended")
            os._exit(1)

    def raise_verdict(self) -> None:
        if self.verdict is not None:
            raise self.verdict

    def _pause_s(self) -> float:
        """Seldom enough to leave the timing alone, often enough to keep a short limit."""
        if self._deadline_s is None:
            return WATCH_PERIOD_S / 10
        return min(WATCH_PERIOD_S, max(0.01, self._deadline_s - time.monotonic()))

    def _judge(self) -> RuntimeFault | None:
        now_s = time.monotonic()
        if self._deadline_s is not None and now_s >= self._deadline_s:
            return RuntimeFault("time_limit", f"the job ran longer than its limit of {self._limit_s:g} s")
        lease = read_json(self._root.lease) or {}
        if lease.get("token") != self._job.token:
            return RuntimeFault("lease_lost", f"lease {self._job.token} was taken over by {lease.get('token')}")
        if is_alive(lease.get("holder", {})):
            self._held_at_s = now_s
        elif now_s - self._held_at_s > self._job.orphan_grace_s:
            return RuntimeFault("lease_lost", "the holder of the lease is gone and did not come back")
        return None


@contextmanager
def alone_on_this_machine(job: JobSpec, watch: Watch, cores: Sequence[int] = ()) -> Iterator[None]:
    """Hold the machine while timing, or the ``cores`` that are leased. Two boards with roots or containers of their own may
    be one machine: they never time side by side on one core.

    A job that times nothing does not wait. Raises :class:`RuntimeFault` ``busy`` past ``busy_wait_s``.
    """
    if not job.plan.timed:
        yield
        return
    with Claim(cores) as claim:
        give_up_s = time.monotonic() + job.busy_wait_s
        while not claim.take():
            watch.raise_verdict()
            if time.monotonic() > give_up_s:
                what = f"core {', '.join(map(str, cores))} of this machine" if cores else "this machine"
                raise RuntimeFault("busy", f"{what} was measuring for another board for {job.busy_wait_s:g} s")
            time.sleep(0.05)
        yield


def job_status(root: Root, job_id: str) -> dict[str, Any]:
    """The status file, corrected when its writer is gone: a killed supervisor or a reboot can write no last word."""
    status: dict[str, Any] | None = read_json(root.job(job_id) / "status.json")
    if status is None:
        return {
            "state": "failed",
            "cause": "supervisor_died",
            "message": "the job has no status",
            "wait_ns": 0,
            "run_ns": 0,
        }
    while status["state"] not in FINAL_STATES and not is_alive(status["supervisor"]):
        again: dict[str, Any] = read_json(root.job(job_id) / "status.json") or status
        if again != status:  # it ended, or another process took it over, between the two looks
            status = again
            continue
        if status["supervisor"]["boot_id"] != boot_id():
            return {**status, "state": "failed", "cause": "rebooted", "message": "the board has rebooted under the job"}
        return {**status, "state": "failed", "cause": "supervisor_died", "message": "its supervisor is gone"}
    return status


def log_tail(root: Root, job_id: str, limit_bytes: int = 2000) -> str:
    """The end of a job's log, for the message of a failure."""
    try:
        data = (root.job(job_id) / "log").read_bytes()
    except OSError:
        return ""
    return data[-limit_bytes:].decode("utf-8", errors="replace")
