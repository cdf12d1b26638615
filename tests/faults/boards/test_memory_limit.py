"""A board's `memory`: a variant that needs more is ended there, by the kernel or by looking, and the fault is its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import OUTPUTS_ONLY, conv_model, hungry_model, make_payload, squares_study
from fault_kit import inside, local_board, need_program, need_root

import edgedeploy
from edgedeploy import RunOptions
from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.care.attempts import Attempts, Patience
from edgedeploy.errors import MeasurementError
from edgedeploy.records.job import Job
from edgedeploy.runtime.agent.memory import groups
from edgedeploy.runtime.agent.memory_limit import CONTROL_GROUP, LOOKING
from edgedeploy.runtime.processes import start_ticks
from edgedeploy.study.store import Store

pytestmark = pytest.mark.waiting

LIMIT_BYTES = 400_000_000


def too_much(path: Path) -> None:
    """480 MB at each run."""
    hungry_model(path, rows=120)


QUICK = Patience(attempts=2, pause_s=0.0)


@contextmanager
def board_that_holds_by(way: str, folder: Path) -> Iterator[RemoteBoard]:
    """For ``looking`` the board's processes see no control groups: their file system is hidden from them alone."""
    need_root("a control group, and hiding it")
    if way == CONTROL_GROUP:
        room = next((group for group in groups() if (group / "cgroup.procs").exists()), None)
        if room is None or not _takes_groups(room):
            pytest.skip("this machine's control groups for memory are not ours to make")
        yield local_board(folder / "root")
        return
    need_program("unshare", "util-linux")
    again = '[ -n "$HIDDEN" ] || HIDDEN=1 exec unshare -m -- "$0" "$@"\nmount -t tmpfs none /sys/fs/cgroup'
    yield local_board(folder / "root", python=inside(folder, again))


def _takes_groups(room: Path) -> bool:
    probe = room / f"tests-{uuid.uuid4().hex}"
    try:
        probe.mkdir()
    except OSError:
        return False
    found = any((probe / name).exists() for name in ("memory.max", "memory.limit_in_bytes"))
    probe.rmdir()
    return found


def groups_left() -> list[Path]:
    """Control groups whose supervisor, after whom each is named, has ended. Tests beside this one have theirs meanwhile."""
    found = [left for group in groups() for left in group.glob("edgedeploy-*-*")]
    return [left for left in found if start_ticks(int(left.name.split("-")[1])) is None]


@pytest.mark.fault(23)
@pytest.mark.parametrize("way", [CONTROL_GROUP, LOOKING])
def test_a_variant_past_the_limit_is_ended_and_one_within_it_is_measured(way: str, tmp_path: Path) -> None:
    plan = replace(OUTPUTS_ONLY, memory_limit_bytes=LIMIT_BYTES)
    baseline = make_payload(tmp_path / "b")
    with board_that_holds_by(way, tmp_path) as board:
        attempts = Attempts(board, patience=QUICK)
        job = Job(make_payload(tmp_path / "c", too_much), baseline, plan)
        with pytest.raises(
            MeasurementError, match=rf"memory_limit: candidate: .*the 400 MB .*held by {way}.*it had \d+ MB"
        ):
            attempts.run(job, tmp_path)
        _, run = attempts.run(Job(make_payload(tmp_path / "d", conv_model), baseline, plan), tmp_path)
        assert run.environment["memory_limit"] == {"bytes": LIMIT_BYTES, "held_by": way}
        assert run.candidate.peak_memory_bytes < LIMIT_BYTES
    assert not groups_left()


@pytest.mark.fault(23)
def test_libraries_that_another_process_has_in_memory_count_too(tmp_path: Path) -> None:
    """The kernel charges their pages to the baseline, which ran first: the group alone would let the variant pass."""
    payload = make_payload(tmp_path / "c", conv_model)
    _, run = Attempts(local_board(tmp_path / "root"), patience=QUICK).run(Job(payload, payload, OUTPUTS_ONLY), tmp_path)
    plan = replace(OUTPUTS_ONLY, memory_limit_bytes=int(0.9 * run.candidate.peak_memory_bytes))
    with (
        board_that_holds_by(CONTROL_GROUP, tmp_path) as board,
        pytest.raises(MeasurementError, match=r"memory_limit: candidate: .*it had \d+ MB"),
    ):
        Attempts(board, patience=QUICK).run(Job(payload, payload, plan), tmp_path)


@pytest.mark.fault(23)
def test_the_baseline_has_no_limit(tmp_path: Path) -> None:
    plan = replace(OUTPUTS_ONLY, memory_limit_bytes=LIMIT_BYTES)
    job = Job(make_payload(tmp_path / "c"), make_payload(tmp_path / "b", too_much), plan)
    _, run = Attempts(local_board(tmp_path / "root"), patience=QUICK).run(job, tmp_path)
    assert run.baseline is not None and run.baseline.peak_memory_bytes > LIMIT_BYTES


def test_a_study_with_a_limit_that_nothing_meets_ends_with_every_variant_named(tmp_path: Path) -> None:
    """The limit is below what the runtime alone has: the baseline is measured all the same, and nothing is on the front."""
    other = '[[boards]]\nname = "loopback"\nkind = "emulated"\nserver = "embedded"\n\n'
    limited = ('kind = "local"', 'kind = "local"\nmemory = "40 MB"')
    path = squares_study(tmp_path, (other, ""), limited, ("trials = 6", "trials = 2"))
    study = edgedeploy.load_study(path)
    assert study.spec.memory_limit_bytes == 40_000_000
    result = study.run(RunOptions(out=tmp_path / "out"))
    store = Store(tmp_path / "out")
    assert not result.front.members
    (baseline,) = store.measurements()
    assert baseline.metrics["peak_memory_bytes"] > 40e6 and baseline.metrics["resources_memory_area_byte_s"] > 0
    assert store.failures() and all("memory_limit" in item.message for item in store.failures())
