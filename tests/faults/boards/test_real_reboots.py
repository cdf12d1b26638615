"""A whole machine that is turned off and on under a job: another boot of a real kernel, in an emulator."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from arm_kit import need_image
from board_kit import ENDLESS, make_job

from edgedeploy.boards.agent.board import RemoteBoard
from edgedeploy.boards.agent.session import NEVER_S, BoardOptions
from edgedeploy.boards.arm.image import Image
from edgedeploy.boards.arm.server import _full_system, _wait_for_banner
from edgedeploy.boards.care.attempts import Attempts, Patience
from edgedeploy.boards.emulated.board import kept_port, reach, session_folder
from edgedeploy.boards.emulated.emulator import host_to_itself
from edgedeploy.boards.ssh.transport import SshTransport
from edgedeploy.errors import BoardError, Quarantined

pytestmark = pytest.mark.beside

ROOT = "/root/.edgedeploy"
LIMIT_S = 240.0


class Machine:
    """One machine with a power switch: the same disk image, address and host key at each boot."""

    def __init__(self, image: Image, folder: Path, port: int) -> None:
        self._image = image
        self._folder = folder
        self._port = port
        self._power = contextlib.ExitStack()
        self.boots: list[str] = []

    def on(self) -> None:
        process = self._power.enter_context(_full_system(self._image, self._folder, self._port))
        _wait_for_banner(process, self._port, self._folder / "log")

    def off(self) -> None:
        self._power.close()

    def connect(self) -> SshTransport:
        return SshTransport(reach(self._folder, self._port, "root"), connect_timeout_s=LIMIT_S)

    def read(self, pattern: str) -> str:
        with contextlib.suppress(BoardError), contextlib.closing(self.connect()) as transport:
            return transport.run(["sh", "-c", f"cat {pattern}"], timeout_s=LIMIT_S).stdout.decode()
        return ""

    def boot_id(self) -> str:
        return self.read("/proc/sys/kernel/random/boot_id").strip()

    def runs_a_job(self) -> bool:
        return '"running"' in self.read(f"{ROOT}/jobs/*/status.json")


@pytest.fixture
def machine() -> Iterator[Machine]:
    image = need_image("arm64-system")
    with host_to_itself("guest"), session_folder("edgedeploy-reboots-") as folder, kept_port() as port:
        machine = Machine(image, folder, port)
        machine.on()
        try:
            yield machine
        finally:
            machine.off()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.fault(1)
def test_machine_that_reboots_under_a_job_gets_it_once_more_and_is_then_set_aside(
    machine: Machine, tmp_path: Path
) -> None:
    options = BoardOptions(
        root=ROOT, command_timeout_s=LIMIT_S, unchanged_s=120.0, silence_s=NEVER_S, orphan_grace_s=NEVER_S
    )
    board = RemoteBoard("guest", machine.connect, provenance="emulated", options=options)
    told: list[str] = []
    attempts = Attempts(board, told.append, Patience(attempts=2, pause_s=1.0, away_s=LIMIT_S))
    boots = [machine.boot_id()]

    def cut_the_power_twice() -> None:
        for _ in range(2):
            give_up_s = time.monotonic() + LIMIT_S
            while not machine.runs_a_job() and time.monotonic() < give_up_s:
                time.sleep(0.5)
            machine.off()
            machine.on()
            boots.append(machine.boot_id())

    thread = threading.Thread(target=cut_the_power_twice)
    thread.start()
    try:
        with pytest.raises(Quarantined, match="rebooted 2 times under one job"):
            attempts.run(make_job(tmp_path / "job", plan=ENDLESS), tmp_path)
    finally:
        thread.join()
    assert len(set(boots)) == 3 and all(boots)
    assert len([line for line in told if "the attempt is void, the job goes back once" in line]) == 1, told
    assert not (tmp_path / "outputs.npz").exists()
    with pytest.raises(Quarantined):
        attempts.run(make_job(tmp_path / "next", plan=ENDLESS), tmp_path)
