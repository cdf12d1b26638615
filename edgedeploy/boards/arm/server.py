"""Starts the SSH server of an emulated Arm board, and stops it at the end of the ``with`` block."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgedeploy.boards.arm import files
from edgedeploy.boards.arm.image import Image
from edgedeploy.boards.emulated.board import guarded, kept_port, reach, session_folder
from edgedeploy.boards.emulated.guest import REFUSED
from edgedeploy.boards.emulated.hosting import find_program, guest_command, held_process, refusal
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.errors import CommandFailed

START_TIMEOUT_S: Final = 240.0
"""Starting takes half a second (arm64) or ten seconds (arm64-system) on a quiet machine, many times that beside a
training on all cores."""

MEMORY_MIB: Final = 1536
SSH_PORT: Final = 22
PATIENT_TCP: Final = "sysctl.net.ipv4.tcp_retries2=255"
"""The guest's clock jumps ahead while it waits for this host: it must not take the connection for dead."""


@contextlib.contextmanager
def serve(image: Image) -> Iterator[SshTarget]:
    """A running board and how to reach it. Raises ``TargetUnavailable`` where the kernel refuses, ``CommandFailed``
    when it does not start."""
    with session_folder("edgedeploy-arm-") as folder, kept_port() as port:
        start = _full_system if image.machine == "arm64-system" else _user_mode
        with start(image, folder, port) as process:
            _wait_for_banner(process, port, folder / "log")
            yield reach(folder, port, "root")


@contextlib.contextmanager
def _user_mode(image: Image, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    _write_config(folder, "127.0.0.1", port)
    (folder / "cpuinfo").write_text(files.cpuinfo(os.cpu_count() or 1), encoding="ascii")
    qemu = find_program("qemu-aarch64-static") or "qemu-aarch64-static"
    with held_process(guest_command("arm64", folder, qemu, str(image.root)), folder / "log") as process:
        yield process


@contextlib.contextmanager
def _full_system(image: Image, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    _write_config(folder, "0.0.0.0", SSH_PORT)  # noqa: S104 - of the guest, whose only link is the forwarded port
    with guarded(system_command(image, folder, port), folder / "log") as process:
        yield process


def system_command(image: Image, folder: Path, port: int) -> list[str]:
    """QEMU's command line.

    ``shift=0``: the guest's clock advances by 1 ns with each instruction. ``sleep=off``: while the guest waits, its
    clock jumps to the next timer instead of following this host's clock, so that every boot is the same.
    """
    keys = [
        word
        for name in ("host_key", "authorized_keys", "sshd_config")
        for word in ("-fw_cfg", f"name=opt/edgedeploy/{name},file={folder / name}")
    ]
    return [
        find_program("qemu-system-aarch64") or "qemu-system-aarch64",
        *("-M", "virt,gic-version=3", "-cpu", files.CPU, "-smp", "1", "-m", str(MEMORY_MIB)),
        *("-icount", "shift=0,sleep=off", "-nographic", "-nodefaults", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"console=ttyAMA0 loglevel=4 norandmaps mitigations=off panic=-1 {PATIENT_TCP}"),
        *(
            "-drive",
            f"if=none,id=disk,format=raw,file={image.disk},snapshot=on",
            "-device",
            "virtio-blk-device,drive=disk",
        ),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:{SSH_PORT}"),
        *("-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"),
        *keys,
    ]


def _write_config(folder: Path, address: str, port: int) -> None:
    text = files.SSHD_CONFIG.format(address=address, port=port, cpu=files.CPU)
    (folder / "sshd_config").write_text(text, encoding="ascii")


def _wait_for_banner(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until an SSH server sends its banner. An open port is not enough: the emulator accepts connections from the
    start, and one made before the board listens stays silent for ever. Each attempt therefore waits a little longer."""
    give_up_s = time.monotonic() + START_TIMEOUT_S
    patience_s = 0.5
    while process.poll() is None and time.monotonic() < give_up_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=patience_s) as link:
            patience_s *= 1.3
            if link.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-800:]
    if process.returncode == REFUSED:
        raise refusal("emulated:arm64", said)
    raise CommandFailed(
        "start the emulated Arm board",
        said or f"no SSH server after {START_TIMEOUT_S:.0f} s",
        "Try again on a quieter machine",
    )
