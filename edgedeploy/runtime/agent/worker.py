"""One artifact in a process of its own: ``agent worker JOBDIR JOBID SIDE [--cold | --case N]``.

It says ``{"importing": PACKAGE}`` before each package of the runtime, ``{"loading": TARGET}`` before it touches the
artifact, ``{"event": "ready"}`` after its first output, and then answers one JSON line per JSON line on its standard
input, until that ends. A process of its own makes cold start, peak memory and CPU time the artifact's alone, and a crash
its own; what it said last tells whether it died of its runtime or on the artifact.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from edgedeploy.runtime.agent.job import FRAMES, IMPORTING, LOADING
from edgedeploy.runtime.faults import RuntimeFault, from_exception
from edgedeploy.runtime.files import read_json
from edgedeploy.runtime.sessions.clips import clip_outputs, frame_of, run_clip
from edgedeploy.runtime.sessions.open import Profiled, Session, import_runtime, open_session
from edgedeploy.runtime.wire.job import JobSpec

CYCLED_CASES = 8
"""Timed queries go round these many cases: enough that no input stays the only one in the caches, and bounded memory."""

FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can hold."""

_CPUS = Path("/sys/devices/system/cpu")


def work(folder: Path, side_name: str, cold: bool, case: int | None = None) -> int:
    """Serve until the input ends; the exit status. ``cold`` stops after the first output. With ``case`` that one alone is
    run, and the process waits for its input's end; there is no such case where it says ``no_case`` in place of ``ready``.
    """
    answers = _claim_stdout()
    try:
        side = JobSpec.from_json(read_json(folder / "job.json")).sides[side_name]
        cores = pin(side.threads)
        import_runtime(side.target, lambda package: _say(answers, {IMPORTING: package}))
        _say(answers, {LOADING: side.target})
        cases = Cases(folder / side_name / "inputs")
        another = partial(open_session, side.target, folder / side_name, side.entry, side.settings, side.threads)
        session = another()
        there = case is None or case < cases.count
        if case is None:
            session.run(cases.first(side.states))
        elif there:
            feeds = cases.feeds(case)
            check_finite(clip_outputs(session.run, feeds, side.states) if side.states else session.run(feeds), case)
        _say(answers, {"event": "ready" if there else "no_case", "cores": cores})
        if case is not None:
            sys.stdin.read()
        elif not cold:
            frames = folder / side_name / "inputs" / FRAMES if side.frames else None
            _serve(Worker(session, cases, folder, side.states, another, frames), answers)
    except Exception as exc:  # every failure has to reach the supervisor as a cause
        _say(answers, from_exception(exc, "internal").as_json())
        return 3
    return 0


def _claim_stdout() -> IO[str]:
    """The real standard output for answers only; what libraries print goes to the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: IO[str], value: Any) -> None:
    answers.write(json.dumps(value, allow_nan=False) + "\n")
    answers.flush()


def _serve(worker: Worker, answers: IO[str]) -> None:
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "block":
            _say(answers, worker.block(request["queries"]))
        elif request["do"] == "stretch":
            _say(answers, worker.stretch(request["for_ns"]))
        elif request["do"] == "warmup":
            _say(answers, worker.warm_up(request["queries"]))
        elif request["do"] == "facts":
            _say(answers, worker.facts())
        elif request["do"] == "scenario":
            _say(answers, worker.run_scenario(request["name"], request["settings"]))
        elif request["do"] == "profile":
            _say(answers, worker.profile(request["runs"]))
        elif request["do"] == "outputs":
            _say(answers, worker.collect_outputs())
        else:
            raise RuntimeFault("internal", f"worker does not know {request['do']!r}")


def pin(threads: int) -> list[int]:
    """Bind this process to as many cores as it has threads; the cores. All of them when there are no more.

    The strongest first where the kernel rates them (big.LITTLE), then the highest numbers, since interrupts go to core 0.
    """
    allowed = sorted(os.sched_getaffinity(0), key=lambda core: (_capacity(core), core))
    chosen = sorted(allowed[-threads:])
    os.sched_setaffinity(0, chosen)
    return chosen


def _capacity(core: int) -> int:
    try:
        return int((_CPUS / f"cpu{core}" / "cpu_capacity").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


class Cases:
    """Stacked inputs, mapped from disk: (cases, *input shape) per model input."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        names = (folder / "names.txt").read_text(encoding="utf-8").split("\n")
        self._arrays: dict[str, Any] = {
            name: np.load(folder / f"{index}.npy", mmap_mode="r", allow_pickle=False)
            for index, name in enumerate(names)
        }
        lengths = {len(array) for array in self._arrays.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise RuntimeFault("bad_job", f"inputs stack {sorted(lengths)} cases")
        self.count = lengths.pop()

    def feeds(self, case: int) -> dict[str, Any]:
        """The inputs of one case as arrays in memory."""
        import numpy as np

        return {name: np.array(array[case]) for name, array in self._arrays.items()}  # a row may have no dimension

    def first(self, states: Mapping[str, str]) -> dict[str, Any]:
        """The inputs of the first inference; of a clip, its first frame's."""
        feeds = self.feeds(0)
        return frame_of(feeds, states, 0, feeds) if states else feeds

    def differ(self) -> bool:
        """Whether any case differs from the first."""
        return any((array[0] != array[case]).any() for array in self._arrays.values() for case in range(1, self.count))


class Worker:
    """Answers requests with a session. With ``states`` a case is a clip; what is timed are its first frames, each with the
    state that it had in the clip. ``another`` opens the artifact once more; ``frames`` is the file of coded images."""

    def __init__(
        self,
        session: Session,
        cases: Cases,
        folder: Path,
        states: Mapping[str, str] = MappingProxyType({}),
        another: Callable[[], Session] | None = None,
        frames: Path | None = None,
    ) -> None:
        self._session = session
        self._cases = cases
        self._folder = folder
        self._states = states
        self._another = another
        self._frames = frames
        if states:
            clip = islice(run_clip(session.run, cases.feeds(0), states), CYCLED_CASES)
            self._cycle = [frame for frame, _ in clip]
        else:
            self._cycle = [cases.feeds(case) for case in range(min(CYCLED_CASES, cases.count))]
        self._next = 0

    def _feeds(self) -> dict[str, Any]:
        feeds = self._cycle[self._next]
        self._next = (self._next + 1) % len(self._cycle)
        return feeds

    def warm_up(self, queries: int) -> dict[str, Any]:
        for _ in range(queries):
            self._session.run(self._feeds())
        return {"queries": queries}

    def block(self, queries: int) -> dict[str, Any]:
        """One untimed query, which brings code and data back into the caches, then the timed ones.

        ``block_ns`` is each query's wall time, ``cpu_ns`` the process's CPU time (all threads) of the timed ones together.
        """
        gc.collect()
        run = self._session.run
        run(self._feeds())
        times_ns = []
        cpu_before = time.process_time_ns()
        for _ in range(queries):
            feeds = self._feeds()
            start = time.perf_counter_ns()
            run(feeds)
            times_ns.append(time.perf_counter_ns() - start)
        return {"block_ns": times_ns, "cpu_ns": time.process_time_ns() - cpu_before}

    def run_scenario(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The raw series of one scenario. Imported here, so that no cold start pays for it."""
        from edgedeploy.runtime.scenarios.base import Bench, make_scenario
        from edgedeploy.runtime.scenarios.frames import CodedFrames
        from edgedeploy.runtime.scenarios.schedule import MonotonicClock
        from edgedeploy.runtime.sensors.environment import snapshot

        gc.collect()
        frames = partial(CodedFrames, self._frames) if self._frames is not None else None
        bench = Bench(self._session, self._cycle, MonotonicClock(), snapshot, self._another, frames)
        return make_scenario(name, settings).run(bench)

    def stretch(self, for_ns: int) -> dict[str, Any]:
        """Queries one after the other until the time is over, for sensors that are slower than one query."""
        self._session.run(self._feeds())
        queries = 0
        start_ns = now_ns = time.monotonic_ns()
        while now_ns - start_ns < for_ns:
            self._session.run(self._feeds())
            queries += 1
            now_ns = time.monotonic_ns()
        return {"start_ns": start_ns, "end_ns": now_ns, "queries": queries}

    def facts(self) -> dict[str, Any]:
        """Peak memory so far comes first: asking for the executed layers may open a second session."""
        peak_bytes = peak_memory_bytes()
        return {
            "peak_memory_bytes": peak_bytes,
            "memory_note": getattr(self._session, "memory_note", ""),
            "executed": self._session.executed(),
            "device": self._session.device,
            "runtime_version": self._session.version,
        }

    def profile(self, runs: int) -> dict[str, Any]:
        """Time and place of each layer over ``runs`` inferences after the first, or why there is none."""
        if not isinstance(self._session, Profiled):
            return {"missing": f"the runtime on {self._session.device} tells no times of layers"}
        return {"runs": runs, "layers": self._session.profile([self._feeds() for _ in range(runs + 1)])}

    def collect_outputs(self) -> dict[str, Any]:
        """Run every case once and write ``outputs.npz``: output name -> (cases, *output shape); of clips (cases, frames,
        *output shape).

        Raises :class:`RuntimeFault`: ``non_finite``; ``constant_output`` when different inputs all give one answer.
        """
        first: dict[str, Any] = {}
        varies = False
        with OutputFile(self._folder, self._cases.count) as file:
            for case in range(self._cases.count):
                outputs = self._outputs(self._cases.feeds(case))
                check_finite(outputs, case)
                first = first or outputs
                varies = varies or any((outputs[name] != first[name]).any() for name in first)
                file.append(outputs)
        if not varies and self._cases.count > 1 and self._cases.differ():
            raise RuntimeFault("constant_output", f"all {self._cases.count} cases give the same output")
        return {"cases": self._cases.count}

    def _outputs(self, feeds: dict[str, Any]) -> dict[str, Any]:
        return clip_outputs(self._session.run, feeds, self._states) if self._states else self._session.run(feeds)


def check_finite(outputs: dict[str, Any], case: int) -> None:
    import numpy as np

    for name, array in outputs.items():
        bad = int(np.count_nonzero(~np.isfinite(array))) if array.dtype.kind in "fc" else 0
        if bad:
            raise RuntimeFault(
                "non_finite", f"output {name!r}: {bad} of {array.size} values of case {case} are NaN or Inf"
            )


class OutputFile:
    """Writes ``outputs.npz`` case by case, so that memory does not grow with the number of cases.

    Plain writes, not a mapped file: a full disk is an error then, not a SIGBUS. Stored, not compressed: float outputs
    hardly shrink, and the board's time is the costlier one. The same outputs give the same bytes.
    """

    def __init__(self, folder: Path, cases: int) -> None:
        self._folder = folder
        self._cases = cases
        self._streams: dict[str, IO[bytes]] = {}
        self._layouts: dict[str, tuple[Any, ...]] = {}

    def __enter__(self) -> OutputFile:
        return self

    def append(self, outputs: dict[str, Any]) -> None:
        import numpy as np

        for name, array in outputs.items():
            if name not in self._streams:
                stream = (self._folder / f"output-{len(self._streams)}.npy").open("wb")
                shape = (self._cases, *array.shape)
                header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(stream, header)
                self._streams[name] = stream
                self._layouts[name] = (array.dtype, array.shape)
            if (array.dtype, array.shape) != self._layouts[name]:
                raise RuntimeFault("run_failed", f"output {name!r} changes its shape from case to case")
            self._streams[name].write(np.ascontiguousarray(array).tobytes())

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        for stream in self._streams.values():
            stream.close()
        if kind is None:
            self._pack()

    def _pack(self) -> None:
        part = self._folder / "outputs.part"
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, stream in self._streams.items():
                path = Path(stream.name)
                entry = zipfile.ZipInfo(f"{name}.npy", FIXED_TIME)
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as destination:
                    shutil.copyfileobj(source, destination, 1 << 20)
                path.unlink()
        part.replace(self._folder / "outputs.npz")


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
