"""What OpenSSH makes of the user's configuration for one host: the answer of ``ssh -G`` itself.

Only where there is no ssh on this host, paramiko reads ``~/.ssh/config``. It knows fewer keywords, so boards say so then
(:data:`NO_SSH`).
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError

ANSWER_S: Final = 15.0
"""ssh answers in milliseconds; a ``Match exec`` of the user's may take longer."""

NO_SSH: Final = (
    "there is no OpenSSH client on this host: ~/.ssh/config was read by paramiko, which knows no Include, not all of Match, "
    "and not /etc/ssh/ssh_config"
)

_MANY: Final = ("identityfile", "certificatefile")
_PLAIN: Final = re.compile(r"[^\s\x00-\x1f'`\"$\\;&<>|(){}]+")
"""What OpenSSH itself allows in names of hosts and users: commands are made of them."""


@dataclass(frozen=True)
class Question:
    """``port`` and ``user`` None: the configuration decides. ``folder`` is another ``.ssh`` folder than the user's; then
    nothing but its ``config`` is read. ``direct`` leaves out jump servers."""

    host: str
    port: int | None = None
    user: str | None = None
    folder: Path | None = None
    direct: bool = False

    @property
    def home(self) -> Path:
        return self.folder.parent if self.folder else own_home()

    @property
    def asked(self) -> str:
        return f"the SSH configuration of {self.host}"


Answer = Mapping[str, Sequence[str]]
"""By keyword in lower case: its values, one for all but a few keywords."""


def own_home() -> Path:
    """The home folder of this user's account, where ssh looks whatever ``HOME`` says; ``HOME`` for a user without one."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path.home()


def find_ssh() -> str | None:
    return shutil.which("ssh")


def ask(question: Question) -> Answer:
    """Raises ``SpecError`` for a host or user that is no name, and with OpenSSH's own words for a configuration that it
    refuses."""
    for what, name in (("host", question.host), ("user", question.user)):
        if name is not None and (name.startswith("-") or not _PLAIN.fullmatch(name)):
            raise SpecError(f"{what} = {name!r}", f"it is no {what} name", "Give the name that you log in with")
    program = find_ssh()
    answer = _ssh_says(program, question) if program else None
    return _paramiko_says(question) if answer is None else answer


def _ssh_says(program: str, question: Question) -> Answer | None:
    """None from a release before 6.8, which cannot be asked."""
    argv = [program, "-G"]
    if question.folder is not None:
        config = question.folder / "config"
        argv += ["-F", str(config) if config.is_file() else "none"]
    argv += ["-p", str(question.port)] if question.port is not None else []
    argv += ["-l", question.user] if question.user is not None else []
    argv += ["-o", "ProxyJump=none"] if question.direct else []
    argv += ["--", question.host]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SpecError(question.asked, f"ssh -G: {exc}", f"Try it by hand: ssh -G {question.host}") from exc
    said = done.stderr.decode("utf-8", errors="replace").strip()
    if done.returncode != 0:
        if re.search(r"(illegal|unknown|invalid) option -- '?G", said):
            return None
        found = said.replace("\n", "; ")[-400:] or f"ssh -G ended with status {done.returncode}"
        raise SpecError(question.asked, found, f"Mend it until this answers: ssh -G {question.host}")
    return _by_keyword(done.stdout.decode("utf-8", errors="surrogateescape").splitlines())


def _by_keyword(lines: Sequence[str]) -> Answer:
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value.strip())
    return found


def _paramiko_says(question: Question) -> Answer:
    """The question's port and user come first, as the first value of a keyword wins."""
    import paramiko

    lines = ["Host *"]
    lines += [f"  Port {question.port}"] if question.port is not None else []
    lines += [f"  User {question.user}"] if question.user is not None else []
    path = (question.folder or own_home() / ".ssh") / "config"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    try:
        found = paramiko.SSHConfig.from_text("\n".join(lines) + "\n" + text).lookup(question.host)
    except (paramiko.SSHException, ImportError, ValueError, OSError) as exc:
        raise SpecError(
            question.asked, f"{path}: {exc}", "Install OpenSSH's client, which is then asked, or mend it"
        ) from exc
    answer = {key: list(value) if key in _MANY else [str(value)] for key, value in found.items()}
    if question.direct:
        answer.pop("proxyjump", None)
    return answer
