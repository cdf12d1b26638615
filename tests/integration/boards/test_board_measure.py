"""A tiny model measured end to end: this host, an emulated board behind each SSH server."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import pytest
from board_kit import OUTPUTS_ONLY, make_job, make_payload, need_sshd, patient

from edgedeploy.boards.open import open_board
from edgedeploy.errors import SpecError
from edgedeploy.interfaces.board import Board
from edgedeploy.records.job import Job, MeasurePlan, RawRun

pytestmark = pytest.mark.waiting

PLAN = MeasurePlan(queries=12, warmup=2, block=4, cold_starts=2, time_limit_s=60.0)
BOARDS = {
    "local": {"kind": "local"},
    "embedded": {"kind": "emulated", "server": "embedded"},
    "sshd": {"kind": "emulated", "server": "sshd"},
}


@pytest.fixture(scope="module", params=sorted(BOARDS))
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Board:
    if request.param == "sshd":
        need_sshd()
    root = tmp_path_factory.mktemp("root")
    return patient(open_board({"name": request.param, "root": str(root), **BOARDS[request.param]}))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    candidate = make_payload(folder / "candidate", target="openvino", cases=11)
    return Job(candidate, make_payload(folder / "baseline", cases=3), PLAN)


@pytest.fixture(scope="module")
def run(board: Board, job: Job, tmp_path_factory: pytest.TempPathFactory) -> RawRun:
    with board.session() as session:
        return session.measure(job, tmp_path_factory.mktemp("collected"))


def test_both_sides_have_whole_abba_rounds_of_positive_times(run: RawRun) -> None:
    assert run.baseline is not None
    for side in (run.candidate, run.baseline):
        assert [len(block) for block in side.blocks_ns] == [4] * 4
        assert min(time_ns for block in side.blocks_ns for time_ns in block) > 0
        assert len(side.cpu_ns) == 4 and min(side.cpu_ns) > 0
        assert len(side.cold_starts_ns) == 2
        # Starting a process and loading a runtime takes longer than an inference of a tiny model. The longest of these says
        # what else this machine did in that moment.
        assert min(side.cold_starts_ns) > median(time_ns for block in side.blocks_ns for time_ns in block)
        assert side.peak_memory_bytes > 10_000_000


def test_what_ran_is_named(run: RawRun) -> None:
    assert run.baseline is not None
    assert (run.candidate.executed, run.baseline.executed) == ({"float32": 2}, {"float32": 2})
    assert run.candidate.device == "CPU"
    assert run.baseline.device == "CPUExecutionProvider"
    assert run.baseline.runtime_version == onnxruntime.__version__


def test_outputs_are_the_models_answers_to_all_cases(run: RawRun, job: Job) -> None:
    assert run.outputs is not None
    reference = onnxruntime.InferenceSession(str(job.candidate.folder / "model.onnx"))
    with np.load(run.outputs) as found, np.load(job.candidate.inputs) as given:
        assert found.files == ["y"]
        assert found["y"].shape == (11, 1, 2, 16, 16)
        for case in range(11):
            wanted = reference.run(None, {"x": given["x"][case]})[0]
            np.testing.assert_allclose(found["y"][case], wanted, rtol=1e-4, atol=1e-4)


def test_conditions_and_phases_are_recorded(run: RawRun) -> None:
    assert {"before", "after", "background_cpu_share", "clock_skew_ns", "cores"} <= set(run.environment)
    assert run.environment["background_cpu_share"] >= 0
    assert len(run.environment["cores"]["candidate"]) == 1
    assert set(run.phases_ns) == {"upload", "run", "collect", "wait"}
    assert run.phases_ns["run"] > sum(run.candidate.cold_starts_ns)


def test_board_says_what_it_is(board: Board) -> None:
    info = board.probe()
    emulated = info.name != "local"
    assert info.provenance == ("emulated" if emulated else "measured")
    assert any("emulated" in note for note in info.notes) == emulated
    assert info.python == sys.version.split()[0]
    assert info.runtimes["onnxruntime"] == onnxruntime.__version__
    assert info.cores >= 1 and info.memory_bytes > 0 and len(info.identity) == 64


def test_second_run_uploads_nothing_and_leaves_no_job_behind(
    board: Board, job: Job, run: RawRun, tmp_path: Path
) -> None:
    root = Path(board._options.root)  # type: ignore[attr-defined]
    uploaded = {path.name: path.stat().st_ino for path in (root / "blobs").iterdir()}
    with board.session() as session:
        plan = MeasurePlan(queries=0, cold_starts=0, collect_outputs=False)
        again = session.measure(Job(job.candidate, None, plan), tmp_path)
    assert again.outputs is None and again.baseline is None
    assert again.candidate.blocks_ns == ()
    assert {path.name: path.stat().st_ino for path in (root / "blobs").iterdir()} == uploaded
    assert list((root / "jobs").iterdir()) == []


def test_two_jobs_in_one_session(board: Board, tmp_path: Path) -> None:
    job = make_job(tmp_path / "job", plan=OUTPUTS_ONLY)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with board.session() as session:
        first, second = session.measure(job, tmp_path / "a"), session.measure(job, tmp_path / "b")
    assert first.outputs is not None and second.outputs is not None
    assert first.outputs.read_bytes() == second.outputs.read_bytes()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "b", "kind": "shh", "host": "x"}, "ssh"),
        ({"name": "b", "kind": "ssh"}, "host"),
        ({"kind": "local"}, "name"),
        ({"name": "b", "kind": "emulated", "server": "embeded"}, "embedded"),
    ],
)
def test_wrong_tables_are_named(table: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        open_board(table)
