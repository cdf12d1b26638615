"""An emulated Arm board: real arm64 runtimes behind a real SSH server, on a processor that does not exist."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from edgedeploy.boards.arm.image import ArmMachine, require_image
from edgedeploy.boards.arm.server import serve
from edgedeploy.boards.emulated.emulator import EmulatorBoard
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.records.job import Payload
from edgedeploy.records.metrics import Clock

CLOCKS: Final[dict[ArmMachine, Clock]] = {"arm64": "none", "arm64-system": "virtual"}

NOTES: Final[dict[ArmMachine, str]] = {
    "arm64": (
        "emulated arm64: programs run by an instruction emulator (qemu-user) on this host's kernel; no time and no memory "
        "here is a board's, so none is given"
    ),
    "arm64-system": (
        "emulated arm64: a full system in an instruction emulator (qemu-system, one core); its clock counts instructions, "
        "1 ns each: virtual_ns compares work, it is no board's time"
    ),
}


class EmulatedArmBoard(EmulatorBoard):
    """``arm64`` or ``arm64-system``, from its image."""

    def __init__(self, name: str, machine: ArmMachine, sessions: tuple[PackedSession, ...] = ()) -> None:
        super().__init__(name, sessions)
        self.clock = CLOCKS[machine]
        self.note = NOTES[machine]
        self._machine: ArmMachine = machine

    def _require(self) -> None:
        require_image(self._machine)

    def _serve(self) -> AbstractContextManager[SshTarget]:
        return serve(require_image(self._machine))

    def _root(self, target: SshTarget) -> str:
        return "/root/.edgedeploy"

    def _check(self, payload: Payload) -> None:
        """No artifact is known to be computed wrongly."""
