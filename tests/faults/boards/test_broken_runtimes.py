"""Runtimes that die on the board: while they are imported it is the board's failure, on an artifact it has to be shown.

SIMULATED: the runtimes on these boards' PYTHONPATH are ours, and end as broken ones were seen to, but where a test damages
the real one. Processes, signals and the agent are real.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
from board_kit import OUTPUTS_ONLY, conv_model, make_payload
from fault_kit import local_board

import edgedeploy
from edgedeploy import RunOptions
from edgedeploy.boards.care.attempts import Attempts, Patience
from edgedeploy.errors import BoardError, CommandFailed, DidNotRun, MeasurementError
from edgedeploy.records.job import Job
from edgedeploy.study.store import Store

pytestmark = pytest.mark.waiting

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
QUICK = Patience(attempts=2, pause_s=0.0)

KILL = "import os, signal\nos.kill(os.getpid(), signal.{})\n"
TLS = "/usr/lib/aarch64-linux-gnu/libgomp.so.1: cannot allocate memory in static TLS block"
GLIBC = "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by onnxruntime_pybind11_state.so)"
ABI = "module compiled against ABI version 0x1000009 but this version of numpy is 0x2000000"
GROWN = "numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88 from PyObject"

DYING = [
    (KILL.format("SIGILL"), "SIGILL while it imported onnxruntime", "instruction that this processor lacks"),
    (KILL.format("SIGSEGV"), "SIGSEGV while it imported onnxruntime", "install onnxruntime anew"),
    (KILL.format("SIGKILL"), "SIGKILL while it imported onnxruntime", "install onnxruntime anew"),
    ("import os\nos._exit(134)\n", "exit status 134 while it imported onnxruntime", "install onnxruntime anew"),
    (f"raise ImportError({TLS!r})\n", "static TLS block", "LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libgomp.so.1 exec"),
    (f"raise OSError({TLS!r})\n", "static TLS block", "LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libgomp.so.1 exec"),
    (f"raise ImportError({GLIBC!r})\n", "GLIBC_2.34", "C library is older"),
    ("raise ImportError('libGL.so.1: cannot open shared object file')\n", "libGL", "Install the library that is named"),
    (f"raise RuntimeError({ABI!r})\n", "ABI version", "not built for each other"),
    (f"raise ValueError({GROWN!r})\n", "size changed", "not built for each other"),
    ("raise MemoryError()\n", "importing onnxruntime: MemoryError", "by hand"),
]


def board_with(folder: Path, package: str, source: str, *, name: str = "python") -> str:
    """A board's Python that finds ``package`` (SIMULATED) before any installed one."""
    place = folder / "packages" / package
    place.mkdir(parents=True, exist_ok=True)
    (place / "__init__.py").write_text(source)
    python = folder / name
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder / "packages"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


@pytest.mark.fault(42, simulated="the runtime")
@pytest.mark.parametrize(("source", "found", "remedy"), DYING)
def test_runtime_that_dies_at_import_is_the_boards_failure(
    source: str, found: str, remedy: str, tmp_path: Path
) -> None:
    """It says which runtime, how it ended, and what to do; once it is mended, the same job runs."""
    board = local_board(tmp_path / "root", python=board_with(tmp_path, "onnxruntime", source))
    job = Job(make_payload(tmp_path / "job"), None, OUTPUTS_ONLY)
    with board.session() as session, pytest.raises(CommandFailed) as caught:
        session.measure(job, tmp_path)
    assert caught.value.found.startswith("runtime_broken: candidate: ")
    assert found in caught.value.found and remedy in caught.value.remedy
    shutil.rmtree(tmp_path / "packages")
    with board.session() as session:
        assert session.measure(job, tmp_path).outputs is not None


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    ("kept", "found"), [(0.5, "SIGBUS while it imported|importing onnxruntime"), (1e-6, "too short")]
)
def test_real_runtime_whose_library_is_cut_is_the_boards_failure(kept: float, found: str, tmp_path: Path) -> None:
    """As an installation that a full disk cut off."""
    whole = Path(onnxruntime.__file__).parent
    place = tmp_path / "packages" / "onnxruntime"
    shutil.copytree(whole, place, copy_function=os.symlink)
    (library,) = (place / "capi").glob("onnxruntime_pybind11_state*.so")
    data = library.read_bytes()
    library.unlink()
    library.write_bytes(data[: int(len(data) * kept)])
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "packages"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    board = local_board(tmp_path / "root", python=str(python))
    job = Job(make_payload(tmp_path / "job"), None, OUTPUTS_ONLY)
    with board.session() as session, pytest.raises(CommandFailed, match=found) as caught:
        session.measure(job, tmp_path)
    assert caught.value.found.startswith("runtime_broken: candidate: ")
    shutil.rmtree(tmp_path / "packages")
    with board.session() as session:
        assert session.measure(job, tmp_path).outputs is not None


@pytest.mark.fault(42, simulated="the runtime")
def test_runtime_that_hangs_at_import_is_no_artifact_that_takes_too_long(tmp_path: Path) -> None:
    python = board_with(tmp_path, "onnxruntime", "import time\ntime.sleep(600)\n")
    board = local_board(tmp_path / "root", python=python)
    job = Job(make_payload(tmp_path / "job"), None, replace(OUTPUTS_ONLY, time_limit_s=3.0))
    found = r"runtime_broken.*was ended while it imported onnxruntime.*limit of 3 s"
    with board.session() as session, pytest.raises(CommandFailed, match=found):
        session.measure(job, tmp_path)


@pytest.mark.fault(42, simulated="numpy")
def test_numpy_that_dies_is_named(tmp_path: Path) -> None:
    board = local_board(tmp_path / "root", python=board_with(tmp_path, "numpy", KILL.format("SIGILL")))
    with board.session() as session, pytest.raises(CommandFailed, match="SIGILL while it imported numpy"):
        session.measure(Job(make_payload(tmp_path / "job"), None, OUTPUTS_ONLY), tmp_path)


@pytest.mark.fault(42, simulated="the runtime")
def test_loader_errors_after_the_import_are_the_boards_too(tmp_path: Path) -> None:
    """Providers and plug-ins are loaded when an artifact is opened."""
    source = on_session(f"raise RuntimeError({TLS!r})")
    board = local_board(tmp_path / "root", python=board_with(tmp_path, "onnxruntime", source))
    with board.session() as session, pytest.raises(CommandFailed, match=r"runtime_broken.*static TLS"):
        session.measure(Job(make_payload(tmp_path / "job"), None, OUTPUTS_ONLY), tmp_path)


def on_session(action: str) -> str:
    """SIMULATION: the real ONNX Runtime, in which opening a file does ``action`` first; ``data`` is the file's bytes."""
    return f"""
import os, signal, sys
here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.remove(here)
del sys.modules["onnxruntime"]
import onnxruntime
opened = onnxruntime.InferenceSession
def open_it(path, *arguments, **named):
    data = open(path, "rb").read()
    {action}
    return opened(path, *arguments, **named)
onnxruntime.InferenceSession = open_it
"""


DEADLY = on_session('b"deadly" in data and os.kill(os.getpid(), signal.SIGSEGV)')
ALWAYS_DEADLY = on_session("os.kill(os.getpid(), signal.SIGSEGV)")
ONCE_DEADLY = on_session(
    """
    flag = os.path.join(here, "died")
    if not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGSEGV)
""".strip()
)


def deadly_model(path: Path) -> None:
    conv_model(path)
    model = onnx.load(str(path))
    model.graph.node[0].name = "deadly"
    onnx.save(model, str(path))


def attempts_on(folder: Path, source: str, told: list[str]) -> Attempts:
    board = local_board(folder / "root", python=board_with(folder, "onnxruntime", source))
    return Attempts(board, told.append, QUICK)


@pytest.mark.fault(41, 42, simulated="the runtime")
def test_artifact_that_crashes_twice_beside_a_sound_baseline_is_at_fault(tmp_path: Path) -> None:
    told: list[str] = []
    job = Job(make_payload(tmp_path / "c", deadly_model), make_payload(tmp_path / "b"), OUTPUTS_ONLY)
    with pytest.raises(DidNotRun, match=r"worker_crashed: candidate.*SIGSEGV"):
        attempts_on(tmp_path, DEADLY, told).run(job, tmp_path)
    assert [line for line in told if "a second time" in line] == told


@pytest.mark.fault(41, 42, simulated="the runtime")
def test_crash_of_every_artifact_is_the_boards(tmp_path: Path) -> None:
    job = Job(make_payload(tmp_path / "c", deadly_model), make_payload(tmp_path / "b"), OUTPUTS_ONLY)
    with pytest.raises(CommandFailed, match="the candidate and the baseline alone both fail"):
        attempts_on(tmp_path, ALWAYS_DEADLY, []).run(job, tmp_path)


@pytest.mark.fault(41, simulated="the runtime")
def test_crash_that_does_not_come_again_counts_for_nothing(tmp_path: Path) -> None:
    job = Job(make_payload(tmp_path / "c"), make_payload(tmp_path / "b"), OUTPUTS_ONLY)
    _, run = attempts_on(tmp_path, ONCE_DEADLY, []).run(job, tmp_path)
    assert run.outputs is not None


@pytest.mark.fault(41, simulated="the runtime")
def test_baseline_that_crashes_is_not_the_candidates_failure(tmp_path: Path) -> None:
    job = Job(make_payload(tmp_path / "c"), make_payload(tmp_path / "b", deadly_model), OUTPUTS_ONLY)
    with pytest.raises(CommandFailed, match=r"worker_crashed: baseline") as caught:
        attempts_on(tmp_path, DEADLY, []).run(job, tmp_path)
    assert not isinstance(caught.value, MeasurementError)


def study_in(folder: Path, python: str) -> Path:
    """The example on this host through ``python``, with few cases, few queries and no second precision."""
    text = (EXAMPLES / "squares.toml").read_text()
    for old, new in (
        ("count = 32", "count = 8"),
        ('kind = "local"', f'kind = "local"\nroot = "{folder / "root"}"\npython = "{python}"'),
        ('precision = ["float32", "int8"]', 'precision = ["float32"]'),
        ("kernel = [3, 5]", "kernel = [3]"),
        ("trials = 6", "trials = 4"),
        ("queries = 64", "queries = 8"),
        ("cold_starts = 1", "cold_starts = 0"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "squares.py").write_text((EXAMPLES / "squares.py").read_text())
    (folder / "squares.toml").write_text(text)
    return folder / "squares.toml"


@pytest.mark.fault(42, simulated="the runtime")
def test_study_measures_what_a_broken_runtime_left_out_once_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda s, sleep=time.sleep: sleep(min(s, 0.2)))
    study = edgedeploy.load_study(study_in(tmp_path, board_with(tmp_path, "openvino", KILL.format("SIGILL"))))
    out = tmp_path / "out"
    with pytest.raises(BoardError, match="SIGILL while it imported openvino"):
        study.run(RunOptions(out=out, board="here"))
    assert Store(out).failures() == ()
    shutil.rmtree(tmp_path / "packages")
    study.run(RunOptions(out=out, board="here", resume=True))
    assert Store(out).failures() == ()
    targets = {item.variant.target for item in Store(out).measurements()}
    assert targets == {"onnxruntime", "openvino"}
