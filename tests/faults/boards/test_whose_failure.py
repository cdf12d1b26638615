"""Workers that are killed: by the kernel, whose fault it is, or by somebody unknown."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import (
    ENDLESS,
    OUTPUTS_ONLY,
    constant_model,
    conv_model,
    hungry_model,
    make_payload,
    nan_model,
    squares_study,
)
from fault_kit import cgroup_v1, has_loaded, inside, local_board, running_jobs, workers_of

import edgedeploy
from edgedeploy import RunOptions
from edgedeploy.boards.care.attempts import Attempts, Patience
from edgedeploy.errors import CommandFailed, DidNotRun, MeasurementError, Unstable
from edgedeploy.records.job import Job
from edgedeploy.runtime.agent.memory import KillCount, explain_kill
from edgedeploy.study.store import Store

pytestmark = pytest.mark.waiting

QUICK = Patience(attempts=2, pause_s=0.0)
GROUP_BYTES = 700 << 20


def loaded(root: Path, side: str) -> list[int]:
    """Processes of running jobs that have the artifact of ``side`` in use."""
    return [pid for job in running_jobs(root) for pid in workers_of(job, side) if has_loaded(pid)]


@contextmanager
def shot(root: Path, side: str, times: int, number: int = signal.SIGKILL) -> Iterator[list[int]]:
    """End workers of ``side`` by a signal, as often as ``times`` says."""
    hit: list[int] = []
    over = threading.Event()

    def shoot() -> None:
        while len(hit) < times and not over.wait(0.02):
            for pid in loaded(root, side):
                with contextlib.suppress(ProcessLookupError):
                    if pid not in hit:
                        os.kill(pid, number)
                        hit.append(pid)
                        break

    thread = threading.Thread(target=shoot)
    thread.start()
    try:
        yield hit
    finally:
        over.set()
        thread.join()


def long_job(folder: Path) -> Job:
    plan = replace(ENDLESS, queries=20_000, block=500, collect_outputs=True)
    return Job(make_payload(folder / "candidate"), make_payload(folder / "baseline", same_model), plan)


def same_model(path: Path) -> None:
    conv_model(path)
    path.write_bytes(path.read_bytes() + b"\x12\x00")  # another artifact that computes the same


@pytest.mark.fault(41)
@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_one_kill_counts_for_nothing(side: str, tmp_path: Path) -> None:
    told: list[str] = []
    attempts = Attempts(local_board(tmp_path / "root"), told.append, QUICK)
    with shot(tmp_path / "root", side, times=1) as hit:
        _, run = attempts.run(long_job(tmp_path), tmp_path)
    assert len(hit) == 1
    assert run.outputs is not None
    assert [line for line in told if "nothing says by whom or why" in line] == told[:1]


@pytest.mark.fault(41)
def test_candidate_that_is_killed_twice_beside_a_sound_baseline_is_no_memory_exceeded(tmp_path: Path) -> None:
    attempts = Attempts(local_board(tmp_path / "root"), patience=QUICK)
    with shot(tmp_path / "root", "candidate", times=2), pytest.raises(DidNotRun, match="killed: candidate") as caught:
        attempts.run(long_job(tmp_path), tmp_path)
    assert "memory_exceeded" not in str(caught.value)


@pytest.mark.fault(41)
def test_baseline_that_is_killed_again_and_again_is_the_boards(tmp_path: Path) -> None:
    attempts = Attempts(local_board(tmp_path / "root"), patience=QUICK)
    with shot(tmp_path / "root", "baseline", times=2), pytest.raises(CommandFailed, match="killed: baseline"):
        attempts.run(long_job(tmp_path), tmp_path)


@pytest.mark.fault(41, 47)
def test_study_in_which_workers_are_killed_and_files_cut_stores_no_failure(tmp_path: Path) -> None:
    """The worker of each side dies once; before the second run the host's reference and artifact are cut."""
    root = tmp_path / "root"
    changes = (
        ('kind = "local"', f'kind = "local"\nroot = "{root}"'),
        (', "openvino"]', "]"),
        ("count = 32", "count = 8"),
        ("width = [1.0, 0.5]\nkernel = [3, 5]\n", ""),
        ("cold_starts = 1", "cold_starts = 0"),
        ("queries = 64", "queries = 2048"),
    )
    study, out = edgedeploy.load_study(squares_study(tmp_path, *changes)), tmp_path / "out"
    options = RunOptions(out=out, board="here", trials=1, confirm=False)
    with shot(root, "baseline", times=1) as first:
        study.run(options)
    store = Store(out)
    assert len(first) == len(store.measurements()) == 1
    for path in (*out.glob("models/*/reference.onnx"), *out.glob("artifacts/*/model.onnx")):
        path.write_bytes(path.read_bytes()[:100])
    with shot(root, "candidate", times=1) as second:
        study.run(replace(options, trials=2, resume=True))
    assert len(second) == 1
    assert store.failures() == ()
    assert len(store.measurements()) == 2


class _Ending:
    """SIMULATED: a board whose runs end as they are told."""

    name = "b"

    def __init__(self, folder: Path, ends: list[Callable[[], MeasurementError]]) -> None:
        self._board = local_board(folder)
        self._ends = iter(ends)

    @contextmanager
    def session(self) -> Iterator[object]:
        with self._board.session() as session:
            end = next(self._ends, None)
            yield session if end is None else _Failing(session.info, end())


class _Failing:
    def __init__(self, info: object, end: MeasurementError) -> None:
        self.info = info
        self._end = end

    def measure(self, *_: object) -> None:
        raise self._end


@pytest.mark.fault(41, simulated="how the runs end")
def test_three_runs_that_end_in_three_ways_say_nothing_of_the_candidate(tmp_path: Path) -> None:
    ends = [
        lambda cause=cause: DidNotRun("run it", f"{cause}: why", cause=cause)
        for cause in ("killed", "time_limit", "run_failed")
    ]
    with pytest.raises(Unstable, match=r"each run ended otherwise \(1: killed: why; 2: time_limit: why; 3: run_failed"):
        Attempts(_Ending(tmp_path / "root", ends), patience=QUICK).run(long_job(tmp_path), tmp_path)  # type: ignore[arg-type]


@pytest.mark.fault(41, simulated="how the runs end")
def test_runs_are_compared_by_the_agents_word_and_not_by_the_sentence(tmp_path: Path) -> None:
    """Two ends of one cause, told otherwise: shown twice, so it is the candidate's."""
    ends = [
        lambda text=text: DidNotRun("run it", text, cause="killed") for text in ("it was killed", "killed: by hand")
    ]
    job = Job(make_payload(tmp_path / "c"), None, OUTPUTS_ONLY)
    with pytest.raises(DidNotRun, match="killed: by hand"):
        Attempts(_Ending(tmp_path / "root", ends), patience=QUICK).run(job, tmp_path)  # type: ignore[arg-type]


@pytest.mark.fault(17, 41)
def test_outputs_that_are_no_numbers_are_asked_for_twice(tmp_path: Path) -> None:
    told: list[str] = []
    job = Job(make_payload(tmp_path / "c", nan_model), make_payload(tmp_path / "b"), OUTPUTS_ONLY)
    with pytest.raises(MeasurementError, match="non_finite: candidate"):
        Attempts(local_board(tmp_path / "root"), told.append, QUICK).run(job, tmp_path)
    assert ["a second time" in line for line in told] == [True]


@pytest.mark.fault(17, 41)
def test_board_on_which_the_baseline_gives_no_numbers_either_is_at_fault(tmp_path: Path) -> None:
    job = Job(make_payload(tmp_path / "c", nan_model), make_payload(tmp_path / "b", other_nan_model), OUTPUTS_ONLY)
    ended = "each run ended|candidate and the baseline alone both fail|non_finite: baseline"
    with pytest.raises(CommandFailed, match=ended):
        Attempts(local_board(tmp_path / "root"), patience=QUICK).run(job, tmp_path)


@pytest.mark.fault(17, 41)
def test_a_network_that_answers_alike_everywhere_may_be_the_tasks_own(tmp_path: Path) -> None:
    """Its baseline answers alike, too: on a sound board that is a network without training, or a dead layer."""
    models = make_payload(tmp_path / "c", constant_model), make_payload(tmp_path / "b", other_constant_model)
    with pytest.raises(CommandFailed, match="both fail: constant_output") as caught:
        Attempts(local_board(tmp_path / "root"), patience=QUICK).run(Job(*models, OUTPUTS_ONLY), tmp_path)
    assert caught.value.remedy.startswith("See whether the task's own network answers so")


def other_constant_model(path: Path) -> None:
    constant_model(path)
    path.write_bytes(path.read_bytes() + b"\x12\x00")


def other_nan_model(path: Path) -> None:
    nan_model(path)
    path.write_bytes(path.read_bytes() + b"\x12\x00")


# -- memory


@contextmanager
def crowd(tasks: Path, size_bytes: int, count: int = 4) -> Iterator[None]:
    """Other processes in the board's control group, which use memory and sleep: together more than any worker, and each
    less, so that the kernel ends the worker."""
    code = (
        f"open({str(tasks)!r}, 'w').write('0')\nheld = bytearray({size_bytes // count})\n"
        "held[::4096] = b'x' * len(held[::4096])\nprint('up', flush=True)\nimport time; time.sleep(600)"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == b"up\n"
        yield


def growing_model(path: Path) -> None:
    """Sound, and content with what a healthy board has."""
    hungry_model(path, rows=20)


@pytest.mark.fault(23, 41)
@pytest.mark.parametrize("crowded", [False, True], ids=["alone", "in a crowd"])
def test_who_used_the_memory_up(crowded: bool, tmp_path: Path) -> None:
    """Real out-of-memory kills. What needs more than there is has exceeded it; what does not is as innocent as the board."""
    with cgroup_v1("memory") as group:
        (group / "memory.limit_in_bytes").write_text(str(GROUP_BYTES))
        board = local_board(tmp_path / "root", python=inside(tmp_path, f"echo $$ > {group}/tasks"))
        baseline = make_payload(tmp_path / "b")
        job = Job(make_payload(tmp_path / "c", growing_model if crowded else hungry_model), baseline, OUTPUTS_ONLY)
        attempts = Attempts(board, patience=QUICK)
        if not crowded:
            with pytest.raises(DidNotRun, match=r"memory_exceeded: candidate: the kernel ended.*of 734 MB"):
                attempts.run(job, tmp_path)
            return
        with crowd(group / "tasks", 400 << 20), pytest.raises(Unstable, match=r"memory_taken: candidate.*others had"):
            attempts.run(job, tmp_path)
        _, run = attempts.run(job, tmp_path)
        assert run.outputs is not None


def test_kill_near_the_limit_is_told_apart(tmp_path: Path) -> None:
    """By a watcher of memory in user space, say: the kernel has counted nothing."""
    before = KillCount.now()
    assert explain_kill(2**22 + 1, 1 << 60, 0, before).cause == "killed_at_limit"
    assert explain_kill(2**22 + 1, 1 << 20, 0, before).cause == "killed"
