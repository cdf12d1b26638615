"""What an instruction emulator needs of this host: programs, and a kernel that allows new namespaces.

Uses the standard library only, so that any Python runs ``scripts/as-avx2``.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgedeploy.boards.emulated import guest
from edgedeploy.errors import TargetUnavailable


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/bin:/usr/sbin:/sbin")


def require_programs(asked: str, programs: Mapping[str, str]) -> None:
    """Raises ``TargetUnavailable`` unless every program is here; ``programs`` maps each to its Debian package."""
    if platform.system() != "Linux":
        raise TargetUnavailable(asked, f"this host runs {platform.system()}", "Use a Linux host")
    missing = sorted({package for program, package in programs.items() if find_program(program) is None})
    if missing:
        raise TargetUnavailable(asked, f"not installed: {' '.join(missing)}", f"apt-get install {' '.join(missing)}")


def guest_command(kind: str, folder: Path, qemu: str, *words: str) -> list[str]:
    """The command line of :mod:`~edgedeploy.boards.emulated.guest`."""
    return [sys.executable, "-I", "-S", str(Path(guest.__file__)), kind, str(folder), qemu, *words]


@contextlib.contextmanager
def held_process(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that ends when its stdin is closed: at the end of this block, or when this process ends in any
    way."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream, stderr=stream, env=environment)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def refusal(asked: str, said: str) -> TargetUnavailable:
    """The error for a guest that ended with status ``guest.REFUSED``; ``said`` is the end of its output."""
    remedy = "Use Linux 6.7 or newer, and root or user namespaces; in a container, allow them (CAP_SYS_ADMIN)"
    return TargetUnavailable(asked, f"the kernel refuses: {said.strip()[-300:]}", remedy)
