"""This host's disk is full, or takes no larger file, at any point of a study: real disks (tmpfs) and real limits."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import made_up
import pytest
import warm_cli
from board_kit import STUDY_LIMIT_S
from fault_kit import command, need_root
from made_up_study import new_store
from small_task import SmallTask, bench

from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import BuildError, StorageError, Unsupported
from edgedeploy.files import append_line, new_folder, write_atomic, written
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import Artifact
from edgedeploy.study import disk
from edgedeploy.study.events import EventLog
from edgedeploy.study.store import Store
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

pytestmark = [pytest.mark.beside, pytest.mark.slow]

EXAMPLES: Final = Path(__file__).resolve().parents[3] / "docs" / "examples"
ENOUGH: Final = "256m"


@contextmanager
def tmpfs(place: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A disk of that size; the function gives it another one."""
    need_root("mounting a disk")
    place.mkdir()
    try:
        command("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"this machine does not allow mounts: {exc.stderr}")
    try:
        yield lambda other: command("mount", "-o", f"remount,size={other}", place)
    finally:
        command("umount", "-l", place)


@contextmanager
def no_file_beyond(size_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.fault(46)
def test_a_search_on_a_disk_that_fills_is_told_and_goes_on_where_there_is_room(tmp_path: Path) -> None:
    """The sizes end it in Optuna's database, and after the first measurement."""
    shutil.copy(EXAMPLES / "squares.py", tmp_path)
    text = (EXAMPLES / "squares.toml").read_text().replace(', "openvino"]', "]").replace("count = 32", "count = 8")
    (tmp_path / "squares.toml").write_text(text.replace("queries = 64", "queries = 16"))
    with tmpfs(tmp_path / "disk", "24k") as resize:
        out = tmp_path / "disk" / "out"
        argv = [*warm_cli.command(), "search", "squares.toml", "--out", str(out), "--board", "here"]

        def search(status: int) -> str:
            more = ["--resume"] if (out / "study.json").exists() else []
            done = subprocess.run(
                [*argv, "--trials", "2", *more],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=STUDY_LIMIT_S,
            )
            assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
            assert "Traceback" not in done.stderr
            assert list(out.rglob(".part-*")) == []
            for path in out.rglob("*.json"):
                json.loads(path.read_text())
            assert list(out.glob("failures/*")) == []
            return done.stderr.splitlines()[-1]

        for size in ("24k", "268k"):
            resize(size)
            said = search(StorageError.exit_code)
            assert said.startswith("error: ") and str(out) in said
            assert "No space left on device. Free space there" in said or "disk is full. Free space at" in said
        measured = {path.name: path.read_bytes() for path in out.glob("measurements/*.json")}
        resize(ENOUGH)
        search(0)
        for name, content in measured.items():
            assert (out / "measurements" / name).read_bytes() == content, "it was measured twice"
        assert len(list(out.glob("measurements/*.json"))) == 2


@pytest.mark.fault(46)
def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with no_file_beyond(1000), pytest.raises(StorageError, match=rf"write {path}: File too large") as caught:
        write_atomic(path, b"x" * 5000)
    assert "ulimit" in caught.value.remedy
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("file", b"old")]
    with no_file_beyond(1000), pytest.raises(StorageError), new_folder(tmp_path / "folder") as part:
        (part / "large").write_bytes(b"x" * 5000)
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.fault(46)
def test_a_line_that_does_not_fit_is_not_half_there(tmp_path: Path) -> None:
    """A disk that is nearly full takes the first part of a write without an error."""
    path = tmp_path / "lines"
    append_line(path, b"a" * 90)
    with no_file_beyond(150), pytest.raises(StorageError):
        append_line(path, b"b" * 90)
    append_line(path, b"c")
    assert path.read_bytes() == b"a" * 90 + b"\nc\n"


@pytest.mark.fault(46)
def test_events_of_a_full_disk_are_whole_lines(tmp_path: Path) -> None:
    with no_file_beyond(500), EventLog(tmp_path) as log:
        for number in range(20):
            log.finish(f"reason {number} {'x' * 60}", 1, 1)
            log.__exit__(None, None, None)
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert lines and all(json.loads(line) for line in lines)


@pytest.mark.fault(46)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_disk_that_cannot_be_written_says_why(read_only: bool, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "8k"):
        store = new_store(tmp_path / "disk" / "study", [])
        if read_only:
            command("mount", "-o", "remount,ro", tmp_path / "disk")
        said = "Read-only file system" if read_only else "No space left on device"
        with pytest.raises(StorageError, match=said):
            store.keep(made_up.measurement(made_up.variant()))
        with pytest.raises(StorageError, match=said):
            for number in range(2000):
                store.add_time("run", "measure", number, number)
        assert all(isinstance(entry["ns"], int) for entry in store.times())
        assert store.left_out() == ()
        if read_only:
            with pytest.raises(StorageError, match=said), store.own():
                pass


@pytest.mark.fault(46)
def test_a_download_that_does_not_fit_is_not_the_boards_fault(tmp_path: Path) -> None:
    (tmp_path / "on the board").write_bytes(b"x" * 10_000)
    with pytest.raises(StorageError, match="No space left on device"):
        LocalTransport().get(str(tmp_path / "on the board"), Path("/dev/full"), timeout_s=5)
    with pytest.raises(StorageError, match="No space left on device"), written(Path("/dev/full")) as stream:
        stream.write(b"x")


# -- toolchains


class Torn(OnnxRuntimeTarget):
    """A toolchain that does not look at what its writes answer."""

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        with no_file_beyond(resource.RLIM_INFINITY):
            artifact = super().build(request, folder)
        (path,) = (folder / file.name for file in artifact.files)
        path.write_bytes(path.read_bytes()[:2000])
        return Artifact.of_folder(
            folder,
            target=artifact.target,
            precision=artifact.precision,
            entry=artifact.entry,
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            settings=dict(artifact.settings),
            reference_sha256=artifact.reference_sha256,
            built_with=dict(artifact.built_with),
        )


@pytest.mark.fault(46)
def test_an_artifact_that_was_cut_off_is_not_taken(tmp_path: Path) -> None:
    store = Store(tmp_path / "study")
    made, torn = bench(store, SmallTask(tmp_path), OnnxRuntimeTarget()), bench(store, SmallTask(tmp_path), Torn())
    made.reference(made_up.variant())
    with no_file_beyond(2000), pytest.raises(StorageError, match="File too large"):
        torn.artifact(made_up.variant())
    assert list((store.root / "artifacts").iterdir()) == []
    artifact, folder = made.artifact(made_up.variant())
    assert (folder / artifact.entry).stat().st_size > 2000


SAYINGS: Final = (
    "[ErrnoException] write failed: No space left on device",
    "the converter ended with status -25: it said nothing",
    "Not enough disk space to save the model",
    "could not write: Disk quota exceeded",
)


@pytest.mark.fault(46)
@pytest.mark.parametrize("said", SAYINGS)
def test_a_toolchains_own_words_for_a_full_disk_are_understood(said: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing is stored against the variant"):
        disk.raise_if_of_the_disk(BuildError("quantize", said), tmp_path)
    wrapped = BuildError("quantize", "it failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, said)
    with pytest.raises(StorageError):
        disk.raise_if_of_the_disk(wrapped, tmp_path)


@pytest.mark.fault(46)
def test_a_failure_with_next_to_no_room_counts_for_nothing(tmp_path: Path) -> None:
    failure = BuildError("quantize", "the network has no node of that name")
    disk.raise_if_of_the_disk(failure, tmp_path)  # this disk has room: it is the variant's
    with tmpfs(tmp_path / "disk", "4m"):
        disk.raise_if_of_the_disk(Unsupported("quantize", "no such operator"), tmp_path / "disk")
        with pytest.raises(StorageError, match="MiB free there"):
            disk.raise_if_of_the_disk(failure, tmp_path / "disk")
