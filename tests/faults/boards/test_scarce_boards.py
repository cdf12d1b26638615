"""Boards that run out of something: disk while it is written, memory by the kernel's own limit, a core to others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import made_up
import pytest
from board_kit import OUTPUTS_ONLY, hungry_model, make_job, make_payload, need_sshd
from fault_kit import cgroup_v1, command, inside, local_board, small_disk

from edgedeploy.boards.emulated.board import serve
from edgedeploy.boards.local import LocalTransport
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import CommandFailed, MeasurementError
from edgedeploy.evidence.statistics import stability
from edgedeploy.interfaces.board import Transport
from edgedeploy.records.job import Job, MeasurePlan

pytestmark = pytest.mark.waiting


@pytest.mark.fault(23)
def test_kernel_ends_what_uses_up_the_memory(tmp_path: Path) -> None:
    """A real out-of-memory kill, in a control group of 700 MB."""
    with cgroup_v1("memory") as group:
        (group / "memory.limit_in_bytes").write_text(str(700 << 20))
        board = local_board(tmp_path / "root", python=inside(tmp_path, f"echo $$ > {group}/tasks"))
        with board.session() as session:
            assert session.measure(make_job(tmp_path / "small"), tmp_path).outputs is not None
            with pytest.raises(MeasurementError, match="memory_exceeded: candidate"):
                session.measure(make_job(tmp_path / "job", hungry_model), tmp_path)
            assert "oom_kill 1\n" in (group / "memory.oom_control").read_text()
            assert session.measure(make_job(tmp_path / "again"), tmp_path).outputs is not None


@pytest.mark.fault(23)
def test_limit_on_addresses_is_memory_exceeded_too(tmp_path: Path) -> None:
    """Needs no root: ``ulimit -v``, where the allocation itself fails."""
    board = local_board(tmp_path / "root", python=inside(tmp_path, f"ulimit -v {1600 << 10}"))
    with board.session() as session:
        assert session.measure(make_job(tmp_path / "small"), tmp_path).outputs is not None
        with pytest.raises(MeasurementError, match="memory_exceeded: candidate"):
            session.measure(make_job(tmp_path / "job", hungry_model), tmp_path)


@pytest.mark.alone  # it uses all cores
@pytest.mark.fault(22)
def test_work_beside_the_run_makes_it_invalid(tmp_path: Path) -> None:
    plan = MeasurePlan(queries=4000, warmup=1, block=50, cold_starts=0, collect_outputs=False, time_limit_s=60.0)
    payload = make_payload(tmp_path / "job")
    burner = "while True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", burner]) for _ in range(os.cpu_count() or 1)]
    try:
        with local_board(tmp_path / "root").session() as session:
            run = session.measure(Job(payload, payload, plan), tmp_path)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert run.baseline is not None
    assert run.environment["background_cpu_share"] > 0.5
    limits = replace(made_up.LIMITS, max_drift=50.0, max_spread=50.0)
    assert "other processes used" in str(stability(run.baseline, run.environment, limits))


@pytest.mark.fault(7)
@pytest.mark.parametrize("transport", [LocalTransport, SshTransport])
def test_disk_that_fills_during_the_upload(
    transport: type[Transport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was room when it was asked for, and somebody else takes it while the file grows. It is said, no half file stays
    in the way of the next, and what ran before runs again."""
    need_sshd()
    payload = make_payload(tmp_path / "job", cases=2400)
    size = payload.inputs.stat().st_size
    old = make_job(tmp_path / "old")
    with small_disk(tmp_path / "disk", 32) as disk, serve("sshd") as target:
        blobs, taken = disk / "root" / "blobs", disk / "of somebody else"
        assert size > 6 << 20, "the upload takes a while"

        put: Callable[..., None] = transport.put
        crowded: list[Path] = []

        def crowded_put(link: Transport, source: Path, remote: str, *, timeout_s: float) -> None:
            """When the file comes, somebody else has taken what leaves half of its room."""
            if source.stat().st_size == size and not crowded:
                crowded.append(source)
                stats = os.statvfs(disk)
                taken.write_bytes(bytes(stats.f_bavail * stats.f_frsize - size // 2))
            put(link, source, remote, timeout_s=timeout_s)

        monkeypatch.setattr(transport, "put", crowded_put)
        connect = LocalTransport if transport is LocalTransport else lambda: SshTransport(target)
        with local_board(disk / "root", connect).session() as session:
            session.measure(old, tmp_path)
            before = {path.name: path.read_bytes() for path in blobs.iterdir()}
            with pytest.raises(CommandFailed, match=r"disk_full: \d+ bytes are needed, \d+ are free") as caught:
                session.measure(Job(payload, None, OUTPUTS_ONLY), tmp_path)
            assert "Free space under" in caught.value.remedy
            left = {path.name: path.read_bytes() for path in blobs.iterdir()}
            assert left.items() <= before.items(), "what is left is whole: room may be made, and nothing is half there"
            taken.unlink()
            assert session.measure(old, tmp_path).outputs is not None, "what ran before runs again"
            assert session.measure(Job(payload, None, OUTPUTS_ONLY), tmp_path).outputs is not None
        assert not list(blobs.glob(".part-*"))


@pytest.mark.fault(7)
def test_disk_that_became_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        board = local_board(disk / "root")
        with board.session() as session:
            assert session.measure(make_job(tmp_path / "job"), tmp_path).outputs is not None
        command("mount", "-o", "remount,ro", disk)
        with pytest.raises(CommandFailed, match=r"[Rr]ead-only"), board.session():
            pass
        command("mount", "-o", "remount,rw", disk)
        with board.session() as session:
            assert session.measure(make_job(tmp_path / "next"), tmp_path).outputs is not None
