"""Who holds the board: races, holders that die, come back late, or fall silent; boards that reboot."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_kit import ENDLESS, MACHINE_WAIT_S, OUTPUTS_ONLY, make_job
from fault_kit import local_board, running_jobs, wait_for

from edgedeploy.boards.agent.client import AgentClient
from edgedeploy.boards.agent.lease import Lease
from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import Busy, CommandFailed, Rebooted
from edgedeploy.runtime.processes import end_all_with_argument, with_argument
from edgedeploy.runtime.wire.job import JobSpec, Side
from edgedeploy.runtime.wire.serde import to_json

pytestmark = pytest.mark.waiting

REPO = Path(__file__).resolve().parents[3]

HOST = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from board_kit import ENDLESS, make_job, patient
from edgedeploy.boards.open import open_board
folder = Path(sys.argv[1])
board = patient(open_board({"name": "b", "kind": sys.argv[2], "root": str(folder / "root")}))
with board.session() as session:
    session.measure(make_job(folder / "job", plan=ENDLESS), folder)
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentClient]:
    with contextlib.closing(LocalTransport()) as transport:
        yield AgentClient.install(transport, board="b", python=sys.executable, root=str(tmp_path / "root"))


@pytest.mark.fault(9)
def test_second_holder_is_told_who_the_first_is(agent: AgentClient) -> None:
    first = Lease(agent, wait_s=0)
    with pytest.raises(Busy, match=f"process {os.getpid()}"):
        Lease(agent, wait_s=0.2)
    first.release()


@pytest.mark.fault(9)
def test_waiting_holder_gets_the_board_with_a_higher_token(agent: AgentClient) -> None:
    first = Lease(agent, wait_s=0)
    threading.Timer(0.5, first.release).start()
    second = Lease(agent, wait_s=60)
    assert second.token == first.token + 1
    second.release()


@pytest.mark.fault(9)
def test_two_sessions_race_and_one_is_busy(tmp_path: Path) -> None:
    board = local_board(tmp_path / "root", wait_s=0.2)
    with board.session(), pytest.raises(Busy, match="held by"), board.session():
        pass
    with board.session() as session:
        assert session.info.cores >= 1


@pytest.mark.fault(12)
def test_late_holder_may_start_nothing(agent: AgentClient) -> None:
    first = Lease(agent, wait_s=0)
    first.drop()
    second = Lease(agent, wait_s=5)
    side = Side(target="onnxruntime", entry="m", settings={}, threads=1, files={}, inputs="0" * 64)
    job = JobSpec("0" * 32, first.token, OUTPUTS_ONLY, side, None, busy_wait_s=1.0, orphan_grace_s=1.0)
    with pytest.raises(Busy, match="stale_token"):
        agent.call("start", "0" * 32, f"{'0' * 64}:1", stdin=json.dumps(to_json(job)).encode())
    assert not list(Path(agent.root, "jobs").iterdir())
    second.release()


@pytest.mark.fault(11, 12)
def test_lease_is_resumed_while_nobody_took_it(agent: AgentClient) -> None:
    first = Lease(agent, wait_s=0)
    first.drop()
    again = Lease(agent, wait_s=5, resume=first.token)
    assert again.token == first.token
    again.drop()
    taken = Lease(agent, wait_s=5)
    taken.release()
    with pytest.raises(Busy, match="lease_lost"):
        Lease(agent, wait_s=5, resume=first.token)


@pytest.mark.fault(11)
def test_resuming_ends_the_holder_that_a_dead_connection_left(agent: AgentClient) -> None:
    first = Lease(agent, wait_s=0)
    again = Lease(agent, wait_s=5, resume=first.token)
    assert again.token == first.token
    again.release()
    first.drop()


@pytest.mark.fault(10, simulated="the source of boot_id")
def test_lease_of_an_earlier_boot_is_not_resumed(agent: AgentClient) -> None:
    first = Lease(agent, wait_s=0)
    first.drop()
    path = Path(agent.root, "lease.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "an earlier boot"}))
    with pytest.raises(Rebooted, match="rebooted"):
        Lease(agent, wait_s=5, resume=first.token)


@pytest.mark.fault(10)
def test_silent_holder_loses_the_board(agent: AgentClient) -> None:
    silent = agent.transport.start([*agent.command, "lease", "--owner", "silent", "--heartbeat-limit", "0.5"])
    token = json.loads(silent.read_line(60))["token"]
    heir = Lease(agent, wait_s=60)
    assert heir.token == token + 1
    heir.release()
    silent.close()


@pytest.mark.fault(10)
def test_heartbeats_keep_the_board(agent: AgentClient) -> None:
    holder = agent.transport.start([*agent.command, "lease", "--owner", "lively", "--heartbeat-limit", "5.0"])
    holder.read_line(60)
    for _ in range(24):  # longer than the limit, and far more often: a busy machine delays some of them
        time.sleep(0.25)
        holder.write(b"\n")
    with pytest.raises(Busy):
        Lease(agent, wait_s=0)
    holder.close()


@pytest.mark.fault(4, 6, 10)
@pytest.mark.parametrize("kind", ["local", "emulated"])
def test_killed_host_frees_the_board_and_ends_its_job(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    host = subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path), kind], cwd=REPO)
    try:
        job_id = wait_for("the job to run", lambda: running_jobs(root), MACHINE_WAIT_S)[0]
    finally:
        host.kill()
        host.wait()
    with local_board(root, wait_s=60).session() as session:
        assert with_argument(job_id) == []
        assert session.measure(make_job(tmp_path / "next", plan=OUTPUTS_ONLY), tmp_path).outputs is not None


@pytest.mark.fault(4)
def test_job_without_a_holder_ends_by_itself(tmp_path: Path) -> None:
    """Nobody comes for the board after its host died: the job ends all the same."""
    board = local_board(tmp_path / "root", orphan_grace_s=0.5)
    job = make_job(tmp_path / "job", plan=ENDLESS)

    def measure() -> None:
        with pytest.raises(Busy, match="lease_lost"):
            session.measure(job, tmp_path)

    with board.session() as session:
        thread = threading.Thread(target=measure)
        thread.start()
        job_id = wait_for("the job to run", lambda: running_jobs(tmp_path / "root"), MACHINE_WAIT_S)[0]
        lease = json.loads((tmp_path / "root" / "lease.json").read_text())
        os.kill(lease["holder"]["pid"], signal.SIGKILL)
        thread.join(60)
        assert not thread.is_alive()
    wait_for("the job's processes to end", lambda: not with_argument(job_id))


@pytest.mark.fault(5)
def test_job_whose_processes_are_all_gone_is_void(tmp_path: Path) -> None:
    """After a reboot, or when the supervisor itself was killed, the status file still says ``running``."""
    root = tmp_path / "root"
    board = local_board(root, unchanged_s=0.5)
    errors: list[CommandFailed] = []

    def measure() -> None:
        try:
            with board.session() as session:
                session.measure(make_job(tmp_path / "job", plan=ENDLESS), tmp_path)
        except CommandFailed as exc:
            errors.append(exc)

    thread = threading.Thread(target=measure)
    thread.start()
    end_all_with_argument(wait_for("the job to run", lambda: running_jobs(root), MACHINE_WAIT_S)[0])
    thread.join(60)
    assert [error.found.split(":")[0] for error in errors] == ["supervisor_died"]
