"""The optimiser's database is locked, damaged or gone; the study's folder is on a disk whose locks do not hold."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import optuna
import pytest
from fault_kit import command, need_program, need_root, wait_for
from made_up_search import one_board

from edgedeploy.boards.emulated.board import serve
from edgedeploy.errors import SpecError, StorageError
from edgedeploy.records.variant import Variant
from edgedeploy.search import history
from edgedeploy.search.loop import Failed, Outcome, Scored, Search
from edgedeploy.search.space import Space
from edgedeploy.study.mounts import network_file_system
from edgedeploy.study.store import Store

pytestmark = pytest.mark.waiting

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"

SPACE = Space(
    targets=("onnxruntime", "openvino"),
    parameters={"width": (1.0, 0.75, 0.5, 0.25), "precision": ("float32", "int8")},
    arch_defaults={},
    target_precisions={"onnxruntime": ("float32", "int8"), "openvino": ("float32", "int8")},
    default_threads=1,
)


class Lab:
    """A made-up landscape with a real database. Evidence outlives the database, as the store's files do."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "optuna.sqlite3"
        self.evidence: dict[str, tuple[Variant, Outcome]] = {}
        self.evaluated: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def evaluate(self, variant: Variant) -> Outcome:
        self.meanwhile()
        self.evaluated.append(variant.digest)
        bad = variant.width == 0.25 and variant.precision == "int8"
        outcome = Failed("ParityError", "made up") if bad else Scored((variant.width, 1 / variant.width), {"0 w": -1.0})
        self.evidence[variant.digest] = variant, outcome
        return outcome

    def lookup(self, variant: Variant) -> Outcome | None:
        return self.evidence.get(variant.digest, (None, None))[1]

    def run(self, trials: int) -> int:
        search = Search(
            storage=self.path,
            space=SPACE,
            directions=("maximize", "minimize"),
            seed=1,
            lookup=self.lookup,
            clock=nullcontext,
            evidence=lambda: [variant for variant, _ in self.evidence.values()],
        )
        with one_board(self.evaluate) as board:
            return search.run(board, trials=trials, deadline_s=time.monotonic() + 240).evaluated

    def told(self) -> list[tuple[str, str]]:
        """(variant, state) of the finished trials, by variant."""
        found = optuna.load_study(study_name=history.STUDY_NAME, storage=f"sqlite:///{self.path}").trials
        return sorted((t.user_attrs["variant"], t.state.name) for t in found if "variant" in t.user_attrs)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "LOCK_WAIT_S", 0.1)
    monkeypatch.setattr(history, "PAUSES_S", (0.1, 0.2, 0.4, 0.8))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is in the middle of writing."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def check_whole(lab: Lab, trials: int) -> None:
    assert len(lab.evaluated) == len(set(lab.evaluated)) == trials
    told = lab.told()
    assert {digest for digest, _ in told} == set(lab.evaluated)
    assert {state for _, state in told} <= {"COMPLETE", "FAIL"}


@pytest.mark.fault(15)
def test_database_that_is_locked_for_a_while_costs_nothing(
    lab: Lab, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a busy machine makes that while."""
    monkeypatch.setattr(history, "PAUSES_S", (*history.PAUSES_S, *[1.0] * 60))
    lab.run(2)

    def lock() -> None:
        held.wait()
        with locked(lab.path):
            time.sleep(0.9)

    held = threading.Event()
    thread = threading.Thread(target=lock, daemon=True)
    thread.start()
    lab.meanwhile = lambda: (held.set(), time.sleep(0.1))[1]
    assert lab.run(8) == 8
    thread.join()
    check_whole(lab, 8)


@pytest.mark.fault(15)
def test_database_that_stays_locked_ends_the_study_with_its_results_kept(lab: Lab, quick: None) -> None:
    lab.run(2)
    with locked(lab.path):
        started_s = time.monotonic()
        with pytest.raises(StorageError, match="locked") as caught:
            lab.run(8)
        assert time.monotonic() - started_s < 20
    assert "--resume" in caught.value.remedy
    assert caught.value.exit_code == 3
    assert lab.run(8) == 8
    check_whole(lab, 8)


@pytest.mark.fault(15)
def test_lock_between_the_result_and_its_telling(lab: Lab, quick: None) -> None:
    """The evidence is there, the optimiser was not told: the next run tells it and does not measure again."""
    locks: list[object] = []

    def hold() -> None:
        if len(lab.evaluated) == 3 and not locks:
            lock = locked(lab.path)
            lock.__enter__()
            locks.append(lock)

    lab.meanwhile = hold
    with pytest.raises(StorageError):
        lab.run(8)
    assert len(lab.evaluated) == 4
    locks[0].__exit__(None, None, None)  # type: ignore[attr-defined]
    assert lab.run(8) == 8
    check_whole(lab, 8)


@pytest.mark.fault(15)
@pytest.mark.parametrize("damage", ["removed", "overwritten", "cut"])
def test_history_is_told_again_from_the_evidence(damage: str, lab: Lab) -> None:
    lab.run(5)
    before = lab.told()
    for extra in lab.path.parent.glob("optuna.sqlite3-*"):
        extra.unlink()
    if damage == "removed":
        lab.path.unlink()
    elif damage == "overwritten":
        lab.path.write_bytes(b"no database" * 1000)
    else:
        lab.path.write_bytes(lab.path.read_bytes()[:5000])
    assert lab.run(5) == 5
    assert [entry for entry in lab.told() if entry in before] == before
    assert lab.run(8) == 8
    check_whole(lab, 8)
    assert bool(list(lab.path.parent.glob("*.damaged-*"))) == (damage != "removed")


@pytest.mark.fault(15)
def test_database_removed_under_a_running_study(lab: Lab, quick: None) -> None:
    def remove() -> None:
        if len(lab.evaluated) == 3:
            lab.path.unlink()

    lab.meanwhile = remove
    with pytest.raises(StorageError) as caught:
        lab.run(8)
    assert "--resume" in caught.value.remedy and caught.value.exit_code == 3
    assert len(lab.evaluated) == len(lab.evidence) == 4, "what was under way is finished, and nothing after it is begun"
    lab.meanwhile = lambda: None
    assert lab.run(8) == 8
    check_whole(lab, 8)


MADE_UP_MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/me/fast\\040disk ext4 rw 0 0
//nas/lab /mnt/lab cifs rw 0 0
tmpfs /mnt/lab tmpfs rw 0 0
me@host:/ /mnt/far fuse.sshfs rw 0 0
"""
"""MADE UP: no such mounts are here."""


@pytest.mark.fault(16, simulated="the mount table")
@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("/home/me/study", "nfs4, server:/export/home"),
        ("/home/me/fast disk/study", None),
        ("/homestead/study", None),
        ("/mnt/lab/study", None),
        ("/mnt/far/not/there/yet", "fuse.sshfs, me@host:/"),
        ("/var/study", None),
    ],
)
def test_file_system_is_that_of_the_innermost_mount(place: str, found: str | None, tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MADE_UP_MOUNTS)
    assert network_file_system(Path(place), tmp_path / "mounts") == found


@pytest.mark.fault(16)
def test_study_on_a_network_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """A real one: this machine's own sshd, mounted by sshfs."""
    need_root("mounting")
    sshfs = need_program("sshfs", "sshfs")
    far, here = tmp_path / "far", tmp_path / "here"
    far.mkdir()
    here.mkdir()
    for name in ("squares.py", "squares.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    with serve("sshd") as target:
        options = f"port={target.port},IdentityFile={target.identity},UserKnownHostsFile={target.known_hosts}"
        mount = [sshfs, "-f", "-o", options, f"{target.user}@{target.host}:{far}", str(here)]
        process = subprocess.Popen(mount, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            wait_for("the mount", lambda: process.poll() is not None or here.is_mount())
            if process.poll() is not None:
                assert process.stderr is not None
                pytest.skip(f"this machine does not allow FUSE mounts: {process.stderr.read().strip()}")
            argv = [sys.executable, "-m", "edgedeploy", "search", tmp_path / "squares.toml", "--out", here / "study"]
            done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, timeout=300)
            assert done.returncode == 2
            assert "fuse.sshfs" in done.stderr
            assert list(far.iterdir()) == []
            with pytest.raises(SpecError, match="network file system"):
                Store(here / "study").check_place()
        finally:
            if here.is_mount():
                command("umount", here)
            process.terminate()
            process.wait()
