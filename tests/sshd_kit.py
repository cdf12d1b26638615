"""Real sshd servers that are set up otherwise than most: each on loopback, with keys and files of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from board_kit import need_sshd
from fault_kit import need_program, need_root
from restarted_sshd import board_config

from edgedeploy.boards.emulated.board import (
    _wait_for_port,
    find_sshd,
    guarded,
    kept_port,
    make_key,
    reach,
    session_folder,
)
from edgedeploy.boards.ssh.config import SshTarget, user_name


@dataclass(frozen=True)
class Account:
    """Of this user on the server: another login shell, and a home folder with these files."""

    shell: str = "/bin/bash"
    files: tuple[tuple[str, str], ...] = ()


@contextlib.contextmanager
def odd_sshd(*first: str, without: tuple[str, ...] = (), account: Account | None = None) -> Iterator[SshTarget]:
    """A server whose configuration begins with the lines ``first`` (the first value of a keyword counts) and lacks the
    keywords ``without``. ``{folder}`` stands for its folder."""
    need_sshd()
    sshd = str(find_sshd())
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True) if os.getuid() == 0 else None
    with session_folder("edgedeploy-odd-") as folder, kept_port() as port:
        usual = board_config(folder, port).splitlines()
        usual = [line for line in usual if line.split()[0] not in without]
        lines = [line.replace("{folder}", str(folder)) for line in first]
        (folder / "sshd_config").write_text("\n".join([*lines, *usual]) + "\n")
        argv = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
        if account is not None:
            argv = _as_account(folder, account, argv)
        with guarded(argv, folder / "log") as process:
            _wait_for_port(process, port, folder / "log")
            yield reach(folder, port, user_name())


def _as_account(folder: Path, account: Account, argv: list[str]) -> list[str]:
    """The server in a mount namespace of its own, in which this user's account is another one."""
    need_root("another login shell for this user")
    unshare = need_program("unshare", "util-linux")
    me = pwd.getpwuid(os.getuid())
    home = folder / "home"
    home.mkdir()
    for name, text in account.files:
        (home / name).write_text(text)
    own = f"{me.pw_name}:x:{me.pw_uid}:{me.pw_gid}::{home}:{account.shell}\n"
    others = [
        line for line in Path("/etc/passwd").read_text().splitlines(True) if not line.startswith(f"{me.pw_name}:")
    ]
    (folder / "passwd").write_text(own + "".join(others))
    script = f'mount --bind {folder}/passwd /etc/passwd && exec "$@"'
    if subprocess.run([unshare, "-m", "sh", "-c", script, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow a private mount over /etc/passwd")
    return [unshare, "-m", "sh", "-c", script, "sh", *argv]


def need_shell(*names: str) -> str:
    """The first of these shells that is installed."""
    for name in names:
        if shutil.which(name):
            return str(shutil.which(name))
    pytest.skip(f"none of {', '.join(names)} on this machine: apt-get install {names[0]}")


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


def _below(pid: int) -> list[int]:
    """The process's children, theirs, and so on."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for place in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, place.read_text().split()):
                found += [child, *_below(child)]
    return found


class SwitchedSshd:
    """A real server on one port with one set of keys, which is turned on and off. Off, the port is closed."""

    def __init__(self, folder: Path) -> None:
        need_sshd()
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True) if os.getuid() == 0 else None
        folder.mkdir()
        (folder / "host_key.pub").write_text(make_key(folder / "host_key"))
        (folder / "authorized_keys").write_text(f"{make_key(folder / 'client_key')}\n")
        self._folder = folder
        self._kept, self._on = contextlib.ExitStack(), contextlib.ExitStack()
        self._port = self._kept.enter_context(kept_port())
        (folder / "sshd_config").write_text(board_config(folder, self._port))
        self.target = reach(folder, self._port, user_name())

    def __enter__(self) -> SwitchedSshd:
        return self

    def __exit__(self, *exc: object) -> None:
        self.off()
        self._kept.close()

    def on(self) -> None:
        argv = [str(find_sshd()), "-D", "-e", "-f", str(self._folder / "sshd_config")]
        self._guard = self._on.enter_context(guarded(argv, self._folder / "log"))
        _wait_for_port(self._guard, self._port, self._folder / "log")

    def off(self) -> None:
        self._on.close()

    def vanish(self) -> None:
        """As :meth:`off`, and the sessions that are open are cut. What they started on the board goes on."""
        sessions = [pid for pid in _below(self._guard.pid) if _name(pid).startswith("sshd")]
        self.off()
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def table(self, name: str, root: Path, away: str) -> str:
        """The board behind it, as a study file has it."""
        target = self.target
        return (
            f'[[boards]]\nname = "{name}"\nkind = "ssh"\nhost = "{target.host}"\nport = {target.port}\n'
            f'user = "{target.user}"\nidentity = "{target.identity}"\nknown_hosts = "{target.known_hosts}"\n'
            f'python = "{sys.executable}"\nroot = "{root}"\naway = "{away}"\n\n'
        )
