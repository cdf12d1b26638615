"""Runs the SSH server of an arm64 file system for as long as its input is open: ``python guest.py ROOT SESSION QEMU``.

Namespaces of its own (user, mount, process) hold everything: the emulator is registered there alone, what is mounted is
mounted there alone, and when the input ends, the first process in there ends and takes all others with it. Without a
line of the project's: this is a script of its own that starts in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_NEW_USER, _NEW_MOUNTS, _NEW_PIDS = 0x10000000, 0x00020000, 0x20000000
_BIND, _RECURSIVE, _PRIVATE, _REMOUNT, _READ_ONLY = 0x1000, 0x4000, 0x40000, 0x20, 0x1
_DIE_WITH_PARENT = 1
_ALL_IDS = "0 0 4294967295"

AARCH64 = (
    r":edgedeploy:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:PF"
)
"""binfmt_misc's line for arm64 programs. F: the emulator is opened now, so it is found from inside the other root; P: a
program still sees the name that it was started by."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
PRIVATE_FOLDERS = ("tmp", "run", "root", "var/tmp")
"""What may be written: in memory, empty at each start, gone at each end."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    root, session, qemu = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    asks, answers = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(asks[0])
        os.close(answers[1])
        _inside(root, session, qemu, asks[1], answers[0])
    os.close(asks[1])
    os.close(answers[0])
    if os.read(asks[0], 1):  # it has its namespaces; only somebody outside may say which users are in there
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{kind}").write_text(_ALL_IDS, encoding="ascii")
        os.write(answers[1], b"x")
    signal.signal(signal.SIGCHLD, lambda number, frame: os._exit(1))
    if os.waitpid(child, os.WNOHANG)[0] == 0:
        while os.read(0, 4096):
            pass
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _inside(root: Path, session: Path, qemu: str, ask: int, answer: int) -> None:
    """The go-between: its child is the first process of the board, and dies with it."""
    _check(_libc.unshare(_NEW_USER | _NEW_MOUNTS | _NEW_PIDS), "namespaces")
    os.write(ask, b"x")
    if not os.read(answer, 1):
        os._exit(1)
    _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    first = os.fork()
    if first == 0:
        _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        _serve(root, session, qemu)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)


def _serve(root: Path, session: Path, qemu: str) -> None:
    """As process 1 of the board: mount, register, start its server, and bury what is orphaned."""
    place = session / "root"
    place.mkdir()
    _mount("none", Path("/"), "", _PRIVATE | _RECURSIVE)
    _mount(str(root), place, "", _BIND)
    _mount("none", place, "", _BIND | _REMOUNT | _READ_ONLY)
    _mount("proc", place / "proc", "proc", 0)
    _mount(str(session / "cpuinfo"), place / "proc/cpuinfo", "", _BIND)
    _mount("/sys", place / "sys", "", _BIND | _RECURSIVE)
    for name in PRIVATE_FOLDERS:
        _mount("tmpfs", place / name, "tmpfs", 0, "mode=1777" if "tmp" in name else "mode=755")
    _make_devices(place / "dev")
    _register(place / "proc/sys/fs/binfmt_misc", qemu)
    keys = place / "run/edgedeploy"
    keys.mkdir(mode=0o700)
    (place / "run/sshd").mkdir(mode=0o755)
    for name in ("host_key", "authorized_keys", "sshd_config"):
        shutil.copy(session / name, keys / name)
        (keys / name).chmod(0o600)
    os.chroot(place)
    os.chdir("/")
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/run/edgedeploy/sshd_config"])
    while os.wait()[0] != server.pid:
        pass
    os._exit(1)


def _make_devices(folder: Path) -> None:
    _mount("tmpfs", folder, "tmpfs", 0, "mode=755")
    for name in DEVICES:
        (folder / name).touch()
        _mount(f"/dev/{name}", folder / name, "", _BIND)
    (folder / "shm").mkdir()
    _mount("tmpfs", folder / "shm", "tmpfs", 0, "mode=1777")
    (folder / "fd").symlink_to("/proc/self/fd")


def _register(folder: Path, qemu: str) -> None:
    """Run arm64 programs by ``qemu``, in these namespaces and nowhere else (Linux 6.7 or newer). It stays mounted: here
    the kernel forgets what is registered when nobody mounts it any more."""
    _mount("binfmt_misc", folder, "binfmt_misc", 0)
    (folder / "register").write_text(AARCH64 % qemu, encoding="ascii")


def _mount(source: str, place: Path, kind: str, flags: int, options: str = "") -> None:
    status = _libc.mount(
        source.encode(), os.fsencode(place), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(status, f"mount {kind or source} on {place}")


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        sys.stderr.write(f"{what}: {os.strerror(number)}\n")
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
