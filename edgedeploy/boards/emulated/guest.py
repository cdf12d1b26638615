"""Runs programs in an instruction emulator, inside new Linux namespaces::

    guest.py arm64 SESSION QEMU ROOT                    the SSH server of an arm64 file system, while stdin is open
    guest.py x86-64 SESSION QEMU PROGRAM...             a server of this host, while stdin is open
    guest.py program SESSION QEMU PROGRAM...            one program of this host, which replaces this process

The emulator's registration and all mounts are visible inside the namespaces only (user and mount; for the two servers
also process). When stdin ends, the namespace's first process ends, and the kernel kills all others in it. This script
imports nothing of the project, so that it starts in a few milliseconds.

``x86-64`` and ``program`` use the host's file system. Once the emulator is registered, every x86-64 program that is
started inside runs in it. Only the server itself, which computes nothing, was started before and runs natively. It
writes ``SESSION/port.json`` when it serves; ``SESSION/ready`` appears when the emulator is registered, too.

Exit status 77: the kernel, or the container around it, does not allow this; the last line says what was refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

_NEW_USER, _NEW_MOUNTS, _NEW_PIDS = 0x10000000, 0x00020000, 0x20000000
_BIND, _RECURSIVE, _PRIVATE, _REMOUNT, _READ_ONLY = 0x1000, 0x4000, 0x40000, 0x20, 0x1
_DIE_WITH_PARENT = 1
_ALL_IDS = "0 0 4294967295"

AARCH64 = (
    r":edgedeploy:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:PF"
)
"""binfmt_misc's line for arm64 programs. F: the emulator is opened at registration, so it need not exist inside the
other root. P: a program still sees the name that it was started by."""

X86_64 = (
    r":edgedeploy:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\xff\xfe\xff\xff\xff:%s:PF"
)
"""binfmt_misc's line for x86-64 programs. The emulator is one too and would be run in itself for ever: its copy is
excluded by the last byte of the ELF identification, which is unused and otherwise 0."""
LAST_OF_IDENTIFICATION = 15

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
PRIVATE_FOLDERS = ("tmp", "run", "root", "var/tmp")
"""Writable folders. They are in memory: empty at each start, lost at the end."""

START_TIMEOUT_S = 60.0
REFUSED = 77

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    kind, session, qemu, *words = sys.argv[1:]
    place = Path(session)
    if kind == "program":
        with _refusals():
            _enter(place, qemu)
        _become(words)
    with _refusals():
        if kind == "arm64":
            _hold(lambda: _serve_arm64(place, qemu, Path(words[0])))
        else:
            _hold(lambda: _serve_x86_64(place, qemu, words))


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.stderr.flush()
        os._exit(REFUSED)


def _hold(serve: Callable[[], NoReturn]) -> None:
    """Run ``serve`` as the first process of new namespaces until stdin is closed."""
    asks, answers = os.pipe(), os.pipe()
    this, child = os.getpid(), os.fork()
    if child == 0:
        os.close(asks[0])
        os.close(answers[1])
        with _refusals():
            _inside(serve, asks[1], answers[0], this)
    os.close(asks[1])
    os.close(answers[0])
    if os.read(asks[0], 1):  # it is in its namespaces; only a process outside them may map their users
        _map_users(child)
        os.write(answers[1], b"x")
    signal.signal(signal.SIGCHLD, lambda number, frame: _end_as(child))
    if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        _end_as(child)
    while os.read(0, 4096):
        pass
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def _end_as(child: int) -> NoReturn:
    os._exit(_status_of(child))


def _status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


def _inside(serve: Callable[[], NoReturn], ask: int, answer: int, parent: int) -> NoReturn:
    """The intermediate process: its child is the first process of the board, and dies with it. Told to end, it ends that
    one and waits for it: the kernel has ended all others of the board by then."""
    _check(_libc.unshare(_NEW_USER | _NEW_MOUNTS | _NEW_PIDS), "namespaces")
    os.write(ask, b"x")
    if not os.read(answer, 1):
        os._exit(1)
    _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it died before this one could be told
        os._exit(1)
    lives, held = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(held)
        _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if select.select([lives], [], [], 0)[0]:  # nobody holds the other end: the parent, whom it cannot see, has died
            os._exit(1)
        os.close(lives)
        with _refusals():
            serve()
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(first, signal.SIGKILL))
    _end_as(first)


def _map_users(process: int) -> None:
    """Map the users of the namespaces. Root maps every user to itself. Any other user may map only itself, and becomes
    root inside: only root may register an emulator."""
    folder = Path(f"/proc/{process}")
    if os.geteuid() == 0:
        user = group = _ALL_IDS
    else:
        (folder / "setgroups").write_text("deny", encoding="ascii")
        user, group = (f"0 {number} 1" for number in (os.geteuid(), os.getegid()))
    (folder / "uid_map").write_text(user, encoding="ascii")
    (folder / "gid_map").write_text(group, encoding="ascii")


def _serve_arm64(session: Path, qemu: str, root: Path) -> NoReturn:
    """Runs as process 1 of the board: mount, register the emulator, start the server, and reap orphaned processes."""
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
    _register(place, AARCH64 % qemu)
    keys = place / "run/edgedeploy"
    keys.mkdir(mode=0o700)
    (place / "run/sshd").mkdir(mode=0o755)
    for name in ("host_key", "authorized_keys", "sshd_config"):
        shutil.copy(session / name, keys / name)
        (keys / name).chmod(0o600)
    os.chroot(place)
    os.chdir("/")
    _bury_until_end_of(subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/run/edgedeploy/sshd_config"]))


def _serve_x86_64(session: Path, qemu: str, program: list[str]) -> NoReturn:
    """Runs as process 1 of the board: mount, start the server, register the emulator, and reap orphaned processes."""
    _mount("none", Path("/"), "", _PRIVATE | _RECURSIVE)
    _mount("proc", Path("/proc"), "proc", 0)
    _mount(str(session / "cpuinfo"), Path("/proc/cpuinfo"), "", _BIND)
    server = subprocess.Popen(program, stdin=subprocess.DEVNULL)
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while not (session / "port.json").exists():
        if server.poll() is not None or time.monotonic() > give_up_s:
            os._exit(1)
        time.sleep(0.005)
    _register_itself(session, qemu)
    (session / "ready").touch()
    _bury_until_end_of(server)


def _enter(session: Path, qemu: str) -> None:
    """Make the emulator run this process's programs. ``session`` is removed, even after a failure."""
    try:
        _unshare_this_process()
        _mount("none", Path("/"), "", _PRIVATE | _RECURSIVE)
        _mount(str(session / "cpuinfo"), Path("/proc/cpuinfo"), "", _BIND)
        _register_itself(session, qemu)
    finally:
        shutil.rmtree(session)


def _become(program: list[str]) -> NoReturn:
    try:
        os.execvp(program[0], program)  # noqa: S606 - the program that this script was asked to run
    except OSError as exc:
        sys.stderr.write(f"run {program[0]} in the emulator: {exc.strerror}\n")
        sys.exit(127 if isinstance(exc, FileNotFoundError) else 126)  # as shells say it


def _unshare_this_process() -> None:
    asks, answers = os.pipe(), os.pipe()
    this, child = os.getpid(), os.fork()
    if child == 0:
        os.close(asks[1])
        with _refusals():
            if os.read(asks[0], 1):
                _map_users(this)
                os.write(answers[1], b"x")
        os._exit(0)
    os.close(answers[1])
    _check(_libc.unshare(_NEW_USER | _NEW_MOUNTS), "namespaces")
    os.write(asks[1], b"x")
    mapped = os.read(answers[0], 1)
    os.waitpid(child, 0)
    if not mapped:
        raise OSError("namespaces: their users cannot be told")


def _register_itself(session: Path, qemu: str) -> None:
    """Register ``qemu``, itself an x86-64 program, for x86-64 programs."""
    content = bytearray(Path(qemu).read_bytes())
    content[LAST_OF_IDENTIFICATION] = 1
    copy = session / "qemu"
    copy.write_bytes(content)
    copy.chmod(0o755)
    _register(Path("/"), X86_64 % copy)
    copy.unlink()


def _make_devices(folder: Path) -> None:
    _mount("tmpfs", folder, "tmpfs", 0, "mode=755")
    for name in DEVICES:
        (folder / name).touch()
        _mount(f"/dev/{name}", folder / name, "", _BIND)
    (folder / "shm").mkdir()
    _mount("tmpfs", folder / "shm", "tmpfs", 0, "mode=1777")
    (folder / "fd").symlink_to("/proc/self/fd")


def _register(root: Path, line: str) -> None:
    """Register an emulator with the kernel for these namespaces only (Linux 6.7 or newer). binfmt_misc stays mounted,
    because the kernel drops the registration when the last mount goes."""
    folder = root / "proc/sys/fs/binfmt_misc"
    _mount("binfmt_misc", folder, "binfmt_misc", 0)
    (folder / "register").write_text(line, encoding="ascii")


def _bury_until_end_of(server: subprocess.Popen[bytes]) -> NoReturn:
    while os.wait()[0] != server.pid:
        pass
    os._exit(1)


def _mount(source: str, place: Path, kind: str, flags: int, options: str = "") -> None:
    status = _libc.mount(
        source.encode(), os.fsencode(place), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(status, f"mount {kind or source} on {place}")


def _check(status: int, what: str) -> None:
    if status != 0:
        raise OSError(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
