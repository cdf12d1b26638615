"""Runs the workers of a job and times them in turn. Everything here happens in the supervisor's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from edgedeploy.runtime.agent.claim import others_at_work
from edgedeploy.runtime.agent.job import IMPORTING, LOADING
from edgedeploy.runtime.agent.memory import KillCount, explain_kill, past_limit, resident_bytes
from edgedeploy.runtime.agent.memory_limit import MemoryLimit
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.processes import cpu_time_ns, self_command, start_ticks, with_argument
from edgedeploy.runtime.scenarios.resources import CASE_FAILURES, FLARE, RESOURCES, Recorder
from edgedeploy.runtime.sensors.conditions import ConditionRecorder, cool_down
from edgedeploy.runtime.sensors.energy import measure_energy
from edgedeploy.runtime.sensors.environment import BackgroundMeter, snapshot
from edgedeploy.runtime.sessions.sources import known
from edgedeploy.runtime.wire.job import JobSpec, MeasurePlan, ScenarioPlan
from edgedeploy.runtime.wire.result import AgentResult, OutputsFile, RawSide

NOT_TIMED = "no timed queries were asked for"
NOT_ITS_OWN = "the board has some cores of its machine, and sensors count what others do on the rest"


class Workers:
    """Starts a job's worker processes and can end them all, from another thread too. Those of the candidate have at most
    ``limit_bytes`` of memory, where it is given."""

    def __init__(self, folder: Path, job_id: str, log: IO[bytes], limit_bytes: int | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._command = [*self_command(), "worker", str(folder), job_id]
        self._job_id = job_id
        self._log = log
        self._lock = threading.Lock()
        self._live: list[WorkerProcess] = []
        self._ended = False

    def start(self, side: str, *options: str) -> WorkerProcess:
        with self._lock:
            if self._ended:
                raise RuntimeFault("internal", "a worker was started after the job's end")
            limit = MemoryLimit(self._limit_bytes) if side == "candidate" and self._limit_bytes else None
            worker = WorkerProcess(side, [*self._command, side, *options], self._log, self._resident_bytes, limit)
            self._live.append(worker)
            return worker

    def _resident_bytes(self) -> int:
        """What the job's processes have in memory, this one and its parents among them."""
        return sum(resident_bytes(pid) for pid in (os.getpid(), *with_argument(self._job_id)))

    def end_all(self) -> None:
        with self._lock:
            self._ended = True
            for worker in self._live:
                worker.kill()
            for worker in self._live:
                worker.release()

    def left_after(self, patience_s: float) -> list[int]:
        """Process ids of workers that are still there ``patience_s`` after :meth:`end_all`."""
        give_up_s = time.monotonic() + patience_s
        while alive := [worker.pid for worker in self._live if worker.is_there()]:
            if time.monotonic() > give_up_s:
                return alive
            time.sleep(0.02)
        return []


class WorkerProcess:
    """One worker: requests in, answers out."""

    def __init__(
        self,
        side: str,
        argv: Sequence[str],
        log: IO[bytes],
        resident_bytes: Callable[[], int] = lambda: 0,
        limit: MemoryLimit | None = None,
    ) -> None:
        """``resident_bytes`` is what the job's processes have in memory, asked when one of them was killed."""
        self.side = side
        self.limit = limit
        self._resident_bytes = resident_bytes
        self._kills = KillCount.now()
        self.cores: list[int] = []
        self.has_case = True
        self._killed = False
        self._importing = "Python"  # empty from the moment on that the artifact is loaded
        self._started_ns = time.monotonic_ns()
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        if limit is not None:
            limit.hold(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_there(self) -> bool:
        return self._process.returncode is None and start_ticks(self.pid) is not None

    def wait_ready(self) -> int:
        """Wait for the first output; nanoseconds since the process was started."""
        answer = self._answer()
        self.cores, self.has_case = answer["cores"], answer.get("event") != "no_case"
        ready_ns = time.monotonic_ns() - self._started_ns
        self.end_past_limit()
        return ready_ns

    def end_past_limit(self) -> None:
        """Where it has a limit and had more: end it. A control group is not charged with pages of libraries that another
        process read first, so that a worker may pass in one what its board has no room for. Raises :class:`RuntimeFault`."""
        if self.limit is not None and self.limit.is_passed_by(self.pid):
            self._process.kill()
            raise self._death()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request and its answer. Raises the worker's :class:`RuntimeFault`, or says how it died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died: the missing answer says how
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while True:
            line = self._process.stdout.readline()
            if not line:
                raise self._death()
            answer: dict[str, Any] = json.loads(line)
            if "fault" in answer:
                raise RuntimeFault(answer["fault"], f"{self.side}: {answer['message']}", self.side)
            if IMPORTING not in answer and LOADING not in answer:
                return answer
            self._importing = answer.get(IMPORTING, "")

    def _death(self) -> RuntimeFault:
        status, peak_bytes = self._reap()
        self.release()
        if self.limit is not None and not self._killed and self.limit.ended_it:
            kill = past_limit(peak_bytes, self.limit.limit_bytes, self.limit.by)
            return RuntimeFault(kill.cause, f"{self.side}: {kill.message}", self.side)
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        if self._importing:
            ended = "was ended" if self._killed else f"ended with {how}"
            found = f"the process {ended} while it imported {self._importing}, before any artifact was loaded"
            return RuntimeFault("runtime_broken", f"{self.side}: {found}", self.side)
        if status == -signal.SIGKILL and not self._killed:
            kill = explain_kill(self.pid, peak_bytes, self._resident_bytes(), self._kills)
            return RuntimeFault(kill.cause, f"{self.side}: {kill.message}", self.side)
        return RuntimeFault(
            "worker_crashed", f"{self.side}: the process ended with {how} and gave no answer", self.side
        )

    def _reap(self) -> tuple[int, int]:
        """Wait for its end: its exit status, negative for a signal, and the most memory that it had, in bytes."""
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:  # another thread has looked after it
            return self._process.wait(), 0
        self._process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return self._process.returncode, usage.ru_maxrss * 1024

    def finish(self) -> None:
        """Let it end by itself: its input ends."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self.release()

    def release(self) -> None:
        """Give back what held it to its limit."""
        if self.limit is not None:
            self.limit.release()

    def kill(self) -> None:
        self._killed = True
        self._process.kill()


def run_job(job: JobSpec, folder: Path, workers: Workers, leased: Sequence[int] = ()) -> AgentResult:
    """The whole measurement. ``leased`` are the cores that this process is bound to, empty for those of the machine. Raises
    :class:`RuntimeFault`."""
    plan = job.plan
    environment: dict[str, Any] = {}
    beside = set(others_at_work(leased)) if leased else set()
    build_engines(workers, job)
    if plan.cool_to_c is not None:
        environment["cool_down"] = cool_down(plan.cool_to_c, plan.cool_down_s)
    environment["before"] = snapshot()
    cold_ns = cold_starts(workers, list(job.sides), plan.cold_starts)
    scenarios = {item.name: WHOLE[item.name](workers, item) for item in plan.scenarios if item.name in WHOLE}
    live = {name: workers.start(name) for name in job.sides}
    for worker in live.values():
        worker.wait_ready()
    if live["candidate"].limit is not None:
        environment["memory_limit"] = {"bytes": plan.memory_limit_bytes, "held_by": live["candidate"].limit.by}
    environment["cores"] = {name: worker.cores for name, worker in live.items()}
    meter = _background_meter(live, leased)
    recorder = ConditionRecorder(sorted({core for worker in live.values() for core in worker.cores}))
    series = steady(live, plan, recorder.look)
    environment["during"] = recorder.result()
    environment.update(meter.stop())
    environment["energy"] = _energy(live, plan, leased)
    facts = {name: worker.ask("facts") for name, worker in live.items()}
    outputs = _collect(live["candidate"], folder) if plan.collect_outputs else None
    environment["after"] = snapshot()
    if leased:
        environment["leased"] = {"cores": [*leased], "others": sorted(beside | set(others_at_work(leased)))}
    loads = [item for item in plan.scenarios if item.name not in WHOLE]
    if loads:
        # Apart from the conditions above: a board that throttles under a sustained load is a finding, not a void run.
        meter = _background_meter(live, leased)
        scenarios.update(run_loads(live["candidate"], loads))
        environment["scenarios"] = {**meter.stop(), "after": snapshot()}
    live["candidate"].end_past_limit()  # before layers: what a profiler needs is not the variant's
    layers = {name: profiled(worker, plan.profile_runs) for name, worker in live.items()} if plan.profile_runs else {}
    for worker in live.values():
        worker.finish()
    sides = {name: RawSide(**series[name], **facts[name], cold_starts_ns=tuple(cold_ns[name])) for name in live}
    return AgentResult(
        candidate=sides["candidate"],
        baseline=sides.get("baseline"),
        environment=environment,
        scenarios=scenarios,
        layers=layers,
        outputs=outputs,
    )


def build_engines(workers: Workers, job: JobSpec) -> None:
    """For targets that build what they run on the board: one start of each side that nobody times, before the conditions
    are looked at, because a build takes minutes and heats the board."""
    built = {target for target, source in known().items() if source.built_on_board}
    for name, side in job.sides.items():
        if side.target in built:
            worker = workers.start(name, "--cold")
            worker.wait_ready()
            worker.finish()


def profiled(worker: WorkerProcess, runs: int) -> dict[str, Any]:
    """The last thing a worker is asked: a profiler that fails costs the layers' times, not the measurement."""
    try:
        return worker.ask("profile", runs=runs)
    except RuntimeFault as exc:
        return {"missing": exc.message}


def _energy(live: Mapping[str, WorkerProcess], plan: MeasurePlan, leased: Sequence[int]) -> dict[str, Any]:
    if leased:
        return {"missing": NOT_ITS_OWN}
    return measure_energy(live) if plan.queries else {"missing": NOT_TIMED}


def _background_meter(live: Mapping[str, WorkerProcess], cores: Sequence[int]) -> BackgroundMeter:
    def own_cpu_ns() -> int:
        return time.process_time_ns() + sum(cpu_time_ns(worker.pid) for worker in live.values())

    return BackgroundMeter(own_cpu_ns, cores)


def run_loads(worker: WorkerProcess, scenarios: Sequence[ScenarioPlan]) -> dict[str, Any]:
    """The scenarios that one worker runs by itself, in their order."""
    raw: dict[str, Any] = {}
    for item in scenarios:
        with unless_stuck(worker, item):
            raw[item.name] = worker.ask("scenario", name=item.name, settings=dict(item.settings))
    return raw


def cold_starts(workers: Workers, sides: Sequence[str], repeats: int) -> dict[str, list[int]]:
    """Nanoseconds from process start to first output, each in a fresh process; the sides take turns in ABBA order."""
    times_ns: dict[str, list[int]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side in sides if repeat % 2 == 0 else reversed(sides):
            worker = workers.start(side, "--cold")
            times_ns[side].append(worker.wait_ready())
            worker.finish()
    return times_ns


def steady(
    live: Mapping[str, WorkerProcess], plan: MeasurePlan, after_block: Callable[[], None] = lambda: None
) -> dict[str, dict[str, Any]]:
    """Blocks of timed queries in the order A B B A until each side has ``queries``; A alone when there is no B. The answer
    is each side's ``blocks_ns`` and ``cpu_ns``, as :class:`~edgedeploy.runtime.wire.result.RawSide` has them.

    In ABBA order a linear drift of the clocks or the temperature adds the same to both sides. ``after_block`` is called
    between blocks.
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in live}
    if plan.queries:
        for worker in live.values():
            worker.ask("warmup", queries=plan.warmup)
    for name in abba_order(list(live), plan.queries, plan.block):
        answers[name].append(live[name].ask("block", queries=plan.block))
        after_block()
    return {
        name: {
            "blocks_ns": tuple(tuple(block["block_ns"]) for block in blocks),
            "cpu_ns": tuple(block["cpu_ns"] for block in blocks),
        }
        for name, blocks in answers.items()
    }


def abba_order(sides: Sequence[str], queries: int, block: int) -> list[str]:
    """Which side runs which block: whole A B B A rounds, so that no side has more blocks or better places."""
    rounds = -(-queries // (2 * block))
    return [*sides, *reversed(sides)] * rounds


@contextmanager
def unless_stuck(worker: WorkerProcess, scenario: ScenarioPlan) -> Iterator[None]:
    """End the worker when the block takes longer than the scenario may: :class:`RuntimeFault` ``time_limit``."""
    stuck = threading.Event()

    def end() -> None:
        stuck.set()
        worker.kill()

    timer = threading.Timer(scenario.limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except RuntimeFault as exc:
        if not stuck.is_set():
            raise
        raise RuntimeFault("time_limit", f"{scenario.name} was stuck: it ran over {scenario.limit_s:g} s") from exc
    finally:
        timer.cancel()


def resource_curves(workers: Workers, scenario: ScenarioPlan) -> dict[str, Any]:
    """Memory and CPU time of whole runs, each in a fresh process: start, load, ``inferences``, end."""
    settings = scenario.settings
    each = replace(scenario, limit_s=scenario.limit_s / settings["repeats"])
    runs = []
    for _ in range(settings["repeats"]):
        worker = workers.start("candidate")
        recorder = Recorder(worker.pid, period_ns=settings["period_ns"])
        try:
            with unless_stuck(worker, each):
                worker.wait_ready()
                worker.ask("warmup", queries=settings["inferences"] - 1)
        finally:
            curves = recorder.stop()
        worker.finish()
        runs.append(curves)
    return {"runs": runs}


def case_runs(workers: Workers, scenario: ScenarioPlan) -> dict[str, Any]:
    """As the FLARE challenge runs containers: every case in a fresh process, with its memory and CPU time until the answer
    is there. A case that has none (stuck past its limit, killed, crashed) is a failure with its cause; the next is run."""
    settings = scenario.settings
    each = replace(scenario, limit_s=settings["limit_ns"] / 1e9)
    runs = []
    for case in range(settings["cases"]):
        worker, failed = workers.start("candidate", f"--case={case}"), ""
        recorder = Recorder(worker.pid, period_ns=settings["period_ns"])
        try:
            with unless_stuck(worker, each):
                worker.wait_ready()
        except RuntimeFault as exc:
            failed = exc.cause
            if failed not in CASE_FAILURES:
                recorder.stop()
                raise
        curves = recorder.stop_dead() if failed else recorder.stop()
        worker.finish()
        if not worker.has_case:
            break
        runs.append({**curves, "failed": failed})
    return {"limit_ns": settings["limit_ns"], "runs": runs}


WHOLE: Mapping[str, Callable[[Workers, ScenarioPlan], dict[str, Any]]] = {RESOURCES: resource_curves, FLARE: case_runs}
"""Scenarios of whole processes, which this one starts itself."""


def _collect(worker: WorkerProcess, folder: Path) -> OutputsFile:
    worker.ask("outputs")
    path = folder / "outputs.npz"
    return OutputsFile(sha256_file(path), path.stat().st_size)
