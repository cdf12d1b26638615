"""Boards in containers of one machine: each with mounts, a network, processes and IPC of its own, and one processor."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from board_kit import ENDLESS, MACHINE_WAIT_S, OUTPUTS_ONLY, make_job
from fault_kit import local_board, need_program, need_root, running_jobs, wait_for

from edgedeploy.errors import Busy, EdgeDeployError
from edgedeploy.runtime.agent.claim import NOT_SHARED, Claim

pytestmark = [pytest.mark.waiting, pytest.mark.usefixtures("machine_place")]

CONTAINER = ("--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup")
"""What a container has of its own, with the usual settings."""

ROOTLESS = (*CONTAINER, "--user", "--map-root-user")


@contextlib.contextmanager
def container(folder: Path, namespaces: tuple[str, ...]) -> Iterator[str]:
    """A Python that runs in a new container, which lives as long as the context."""
    need_root("a container")
    unshare, nsenter = need_program("unshare", "util-linux"), need_program("nsenter", "util-linux")
    script = "mount -t tmpfs own /dev/shm && mount -t tmpfs own /run && echo up && exec sleep infinity"
    argv = [unshare, *namespaces, "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as outside:
        assert outside.stdout is not None
        try:
            if outside.stdout.readline() != b"up\n":
                pytest.skip(f"this machine does not allow namespaces: {outside.communicate()[1].decode()}")
            init = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().strip()
            folder.mkdir()
            python = folder / "python"
            python.write_text(f'#!/bin/sh\nexec {nsenter} --target {init} --all {sys.executable} "$@"\n')
            python.chmod(0o755)
            yield str(python)
        finally:
            outside.kill()  # its child with it; it does not heed SIGTERM


@pytest.mark.fault(50)
@pytest.mark.parametrize("namespaces", [CONTAINER, ROOTLESS], ids=["container", "rootless"])
def test_of_two_containers_one_measures(namespaces: tuple[str, ...], tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(container(tmp_path / name, namespaces)) for name in ("one", "two"))
        one = local_board(tmp_path / "one" / "root", python=first, unchanged_s=0.5)
        two = local_board(tmp_path / "two" / "root", python=second, wait_s=0.5)

        def measure() -> None:
            with one.session() as session, contextlib.suppress(EdgeDeployError):
                session.measure(make_job(tmp_path / "first", plan=ENDLESS), tmp_path)

        measuring = threading.Thread(target=measure)
        measuring.start()
        wait_for("the first container to measure", lambda: running_jobs(tmp_path / "one" / "root"), MACHINE_WAIT_S)
        with two.session() as session:
            with pytest.raises(Busy, match="measuring for another board"):
                session.measure(make_job(tmp_path / "second", plan=replace(ENDLESS, queries=64, block=8)), tmp_path)
            assert session.measure(make_job(tmp_path / "third", plan=OUTPUTS_ONLY), tmp_path).outputs is not None
        stack.close()  # the first container ends, and its claim with it
        measuring.join()
    with Claim() as claim:
        wait_for("the claim to be free", claim.take, MACHINE_WAIT_S)


@pytest.mark.fault(50)
def test_container_that_shares_nothing_to_lock_says_so(tmp_path: Path) -> None:
    with container(tmp_path / "odd", (*ROOTLESS, "--time")) as python:
        assert NOT_SHARED in local_board(tmp_path / "root", python=python).probe().notes
    assert NOT_SHARED not in local_board(tmp_path / "here").probe().notes
