"""Where and as whom to connect: the board's table, then the user's ~/.ssh/config, then OpenSSH's defaults."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgedeploy.errors import SpecError
from edgedeploy.spec.boards import DEFAULT_PORT

DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^]]+\]|[^:]+)(?::(?P<port>\d+))?/?")


@dataclass(frozen=True)
class Endpoint:
    """A resolved SSH server. ``identities`` are private key files; ``agent``: also try the user's key agent; ``jumps``
    are the jump servers in order; ``proxy_command`` replaces the socket."""

    host: str
    port: int
    user: str
    record_host: str
    identities: tuple[Path, ...]
    agent: bool
    known_hosts: tuple[Path, ...]
    jumps: tuple[Endpoint, ...] = ()
    proxy_command: str | None = None

    @property
    def address(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True)
class SshTarget:
    """The server as a board's table gives it; None means that ~/.ssh/config or the default decides.

    ``home`` is the folder that has ``.ssh`` (None: the user's).
    """

    host: str
    port: int = DEFAULT_PORT
    user: str | None = None
    identity: str | None = None
    known_hosts: str | None = None
    home: Path | None = None


def resolve(target: SshTarget) -> Endpoint:
    """Raises ``SpecError`` for a named identity or known_hosts file that does not exist."""
    return _resolve(target, (target.home or Path.home()) / ".ssh")


def _resolve(target: SshTarget, folder: Path) -> Endpoint:
    import paramiko

    found = paramiko.SSHConfig.from_text(_config_text(target, folder)).lookup(target.host)
    host = str(found.get("hostname", target.host))
    own_records = [_existing(target.known_hosts, "known_hosts")] if target.known_hosts else []
    jump, command = found.get("proxyjump"), found.get("proxycommand")
    return Endpoint(
        host=host,
        port=int(found.get("port", DEFAULT_PORT)),
        user=str(found.get("user") or user_name()),
        record_host=str(found.get("hostkeyalias", host)),
        identities=_identities(target, list(found.get("identityfile", ())), folder),
        agent=target.identity is None and str(found.get("identitiesonly", "no")) != "yes",
        known_hosts=(*own_records, folder / "known_hosts", Path("/etc/ssh/ssh_known_hosts")),
        jumps=_jumps(str(jump), target, folder) if jump and jump != "none" else (),
        proxy_command=str(command) if command and command != "none" and not jump else None,
    )


def _config_text(target: SshTarget, folder: Path) -> str:
    """The table's settings followed by the user's configuration. The first value of a key wins, also for ``%p`` and
    ``%r`` of a ProxyCommand, so this equals ``ssh -p PORT -l USER``."""
    lines = ["Host *"]
    if target.port != DEFAULT_PORT:
        lines.append(f"  Port {target.port}")
    if target.user is not None:
        if not target.user.isprintable() or " " in target.user:
            raise SpecError(f"user = {target.user!r}", "it is no user name", "Give the name that you log in with")
        lines.append(f"  User {target.user}")
    path = folder / "config"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return "\n".join(lines) + "\n" + text


def _jumps(text: str, target: SshTarget, folder: Path) -> tuple[Endpoint, ...]:
    """The servers of a ProxyJump line in their order. Each is looked up in the config, but its own ProxyJump is
    ignored, because the line names every server on the way."""
    hops = []
    for item in text.split(","):
        match = _HOP.fullmatch(item.strip())
        if match is None:
            raise SpecError(
                f"ProxyJump for {target.host} in {folder / 'config'}", f"{item!r}", "Write [user@]host[:port]"
            )
        hop = SshTarget(
            host=match["host"].strip("[]"),
            port=int(match["port"] or DEFAULT_PORT),
            user=match["user"],
            known_hosts=target.known_hosts,
            home=target.home,
        )
        hops.append(replace(_resolve(hop, folder), jumps=()))
    return tuple(hops)


def _identities(target: SshTarget, configured: Sequence[str], folder: Path) -> tuple[Path, ...]:
    if target.identity:
        return (_existing(target.identity, "identity"),)
    named = [Path(path).expanduser() for path in configured]
    usual = [folder / name for name in DEFAULT_IDENTITIES]
    return tuple(path for path in (named or usual) if path.is_file())


def user_name() -> str:
    """This user's name, or its number when it has no account (as in containers that run as any user)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def _existing(path: str, key: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_file():
        raise SpecError(f"{key} = {path!r}", "there is no such file", "Give the path of a file that exists")
    return found
