"""An emulated x86-64 board with AVX2 and nothing newer: this host's interpreter and packages, on a processor of 2013.

Without VNNI its int8 kernels saturate, and give the same wrong results as on a real processor of that kind.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from edgedeploy.boards.emulated.board import (
    START_TIMEOUT_S,
    embedded_command,
    port_in,
    reach,
    require_embedded_server,
    session_folder,
)
from edgedeploy.boards.emulated.emulator import EmulatorBoard
from edgedeploy.boards.emulated.guest import REFUSED
from edgedeploy.boards.emulated.hosting import guest_command, held_process, refusal
from edgedeploy.boards.ssh.config import SshTarget, user_name
from edgedeploy.boards.x86 import haswell
from edgedeploy.errors import CommandFailed, TargetUnavailable
from edgedeploy.interfaces.session import PackedSession
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Payload

MACHINE: Final[Literal["x86-avx2"]] = "x86-avx2"
WORD: Final = f"emulated:{MACHINE}"
NOTE: Final = (
    "emulated x86-avx2: this host's programs run by an instruction emulator (qemu-user) as on a Haswell, which has AVX2 and "
    "neither AVX-512 nor VNNI; no time and no memory here is a board's, so none is given"
)
LEFT_OUT: Final = {"tensorrt": "left out: tensorrt (programs under an instruction emulator do not reach a GPU)"}
"""Runtimes that this host may have but that do not run on the emulated processor, with the reason."""

MISCOMPUTED: Final = re.compile(rb'type="(?:Tanh|LSTM\w+|GRU\w+|RNN\w+)"|approximation_mode="(?:tanh|TANH)"|"\x04Tanh')
"""Operators in an OpenVINO or ONNX file that OpenVINO computes with gather instructions. ONNX Runtime and LiteRT, in
the releases tested here, contain no such instruction."""
FAULT_NOTE: Final = (
    "this emulator gathers wrongly by one of its registers (QEMU before 9.0.3): OpenVINO's tanh, GELU by tanh and recurrent "
    "layers are refused here"
)


class EmulatedX86Board(EmulatorBoard):
    """``x86-avx2``. ``python`` is an interpreter of this host, with its packages."""

    note = NOTE

    def __init__(self, name: str, python: str = sys.executable, sessions: tuple[PackedSession, ...] = ()) -> None:
        super().__init__(name, sessions)
        self.python = python

    def _require(self) -> None:
        haswell.find_qemu(WORD)
        require_embedded_server(WORD)

    def _serve(self) -> contextlib.AbstractContextManager[SshTarget]:
        return serve()

    def _root(self, target: SshTarget) -> str:
        return f"{target.home}/agent"

    def _described(self, info: BoardInfo) -> BoardInfo:
        """The probe's result without this host's accelerators and settings, which the emulated processor does not
        have."""
        notes = [reason for target, reason in LEFT_OUT.items() if target in info.runtimes]
        if "openvino" in info.runtimes and haswell.gathers_wrongly(haswell.find_qemu(WORD)):
            notes.append(FAULT_NOTE)
        runtimes = {target: version for target, version in info.runtimes.items() if target not in LEFT_OUT}
        own = replace(super()._described(info), runtimes=runtimes, notes=(*info.notes, *notes))
        return replace(own, accelerators=(), governor=None)

    def _check(self, payload: Payload) -> None:
        artifact = payload.artifact
        if artifact.target != "openvino" or not haswell.gathers_wrongly(haswell.find_qemu(WORD)):
            return
        found = MISCOMPUTED.search((payload.folder / artifact.entry).read_bytes())
        if found is not None:
            asked = f"board {self.name!r}: run {artifact.target} {artifact.precision}"
            operator = re.findall(r"[A-Za-z]\w+", found[0].decode())[-1]
            remedy = "Install QEMU 9.0.3 or newer, or leave openvino out"
            raise TargetUnavailable(asked, f"the emulator computes its {operator} wrongly (QEMU before 9.0.3)", remedy)


@contextlib.contextmanager
def serve() -> Iterator[SshTarget]:
    """A running board and how to reach it. Raises ``TargetUnavailable`` where the kernel refuses, ``CommandFailed`` when it
    does not start."""
    qemu = haswell.find_qemu(WORD)
    with session_folder("edgedeploy-x86-") as folder:
        haswell.prepare(folder)
        server, port_file = embedded_command(folder)
        command = guest_command("x86-64", folder, qemu, *server)
        with held_process(command, folder / "log", haswell.environment(qemu)) as process:
            _wait_until_ready(process, folder)
            yield reach(folder, port_in(port_file), user_name())


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while not (folder / "ready").exists():
        if process.poll() is None and time.monotonic() < give_up_s:
            time.sleep(0.01)
            continue
        said = (folder / "log").read_text(encoding="utf-8", errors="replace").strip()[-500:]
        if process.returncode == REFUSED:
            raise refusal(WORD, said)
        found = said or f"no SSH server after {START_TIMEOUT_S:.0f} s"
        raise CommandFailed(f"start {WORD}", found, "Try again on a quieter machine")
