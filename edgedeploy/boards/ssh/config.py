"""Where and as whom to connect: the board's table, then what OpenSSH makes of the user's configuration."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.boards.ssh.openssh import Answer, Question, ask, own_home
from edgedeploy.errors import SpecError
from edgedeploy.files.homes import with_home
from edgedeploy.spec.boards import DEFAULT_PORT

DEFAULT_IDENTITIES: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
USER_RECORDS: Final = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
SYSTEM_RECORDS: Final = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
MOST_JUMPS: Final = 8
_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^]]+\]|[^:]+)(?::(?P<port>\d+))?/?")
_TOKEN = re.compile(r"%(.)|\$\{(\w+)\}")


@dataclass(frozen=True)
class Endpoint:
    """A resolved SSH server.

    ``record_names`` are how known_hosts may spell it. ``identities`` are key files; ``agent`` is the socket of the user's
    key agent ("" for that of the environment, None for none), of which ``only_identities`` leaves those keys alone that are
    among the identities. ``known_hosts`` are the user's files, then the system's. ``revoked_keys`` is a
    list of keys, or OpenSSH's binary one (KRL), that no server may show. ``jumps`` are the jump servers in order;
    ``proxy_command`` replaces the socket.
    """

    host: str
    port: int
    user: str
    record_names: tuple[str, ...]
    identities: tuple[Path, ...]
    agent: str | None
    known_hosts: tuple[Path, ...]
    only_identities: bool = False
    revoked_keys: Path | None = None
    jumps: tuple[Endpoint, ...] = ()
    proxy_command: str | None = None

    @property
    def address(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True)
class SshTarget:
    """The server as a board's table gives it; None means that the SSH configuration or the default decides.

    ``home`` is the folder that has ``.ssh`` (None: the user's, and the system's configuration too).
    """

    host: str
    port: int = DEFAULT_PORT
    user: str | None = None
    identity: str | None = None
    known_hosts: str | None = None
    home: Path | None = None


def resolve(target: SshTarget) -> Endpoint:
    """Raises ``SpecError`` for a named identity or known_hosts file that does not exist, and for a configuration that
    OpenSSH refuses."""
    return _resolve(target, direct=False, on_the_way=())


def _resolve(target: SshTarget, *, direct: bool, on_the_way: tuple[str, ...]) -> Endpoint:
    question = Question(
        target.host,
        port=None if target.port == DEFAULT_PORT else target.port,
        user=target.user,
        folder=target.home / ".ssh" if target.home else None,
        direct=direct,
    )
    answer = ask(question)
    host, port = _one(answer, "hostname", target.host), _port(question, _one(answer, "port", str(DEFAULT_PORT)))
    user = _one(answer, "user") or user_name()
    alias = _one(answer, "hostkeyalias")
    jump, command = _one(answer, "proxyjump"), _one(answer, "proxycommand")
    if command and _one(answer, "proxyusefdpass") == "yes":
        raise SpecError(question.asked, "ProxyUseFdpass yes", "Let the proxy command carry the data (nc without -F)")
    words = _Words(question, host=host, port=port, user=user, alias=alias or target.host, jump=jump)
    own_records = [_existing(target.known_hosts, "known_hosts")] if target.known_hosts else []
    agent = _one(answer, "identityagent", "SSH_AUTH_SOCK")
    revoked = _one(answer, "revokedhostkeys")
    return Endpoint(
        host=host,
        port=port,
        user=user,
        record_names=(alias,) if alias else record_names(host, port),
        identities=_identities(target, answer.get("identityfile") or DEFAULT_IDENTITIES, words),
        agent=None if agent == "none" else "" if agent == "SSH_AUTH_SOCK" else str(words.path(agent)),
        known_hosts=(
            *own_records,
            *_records(_one(answer, "userknownhostsfile", USER_RECORDS), words),
            *_records(_one(answer, "globalknownhostsfile", SYSTEM_RECORDS), words),
        ),
        only_identities=target.identity is not None or _one(answer, "identitiesonly", "no") == "yes",
        revoked_keys=words.path(revoked) if revoked else None,
        jumps=_jumps(jump, target, on_the_way) if jump else (),
        proxy_command=words.expand(command) if command and not jump else None,
    )


def _one(answer: Answer, key: str, default: str = "") -> str:
    """``none`` counts as left out, but for the keywords in which it means something."""
    value = next(iter(answer.get(key, ())), default)
    return (
        "" if value == "none" and key not in ("identityagent", "userknownhostsfile", "globalknownhostsfile") else value
    )


def _port(question: Question, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 16:
        raise SpecError(question.asked, f"Port {text}", "Give a number from 1 to 65535")
    return int(text)


class _Words:
    """OpenSSH's tokens (ssh_config(5), TOKENS) and ``${NAMES}`` of the environment."""

    def __init__(self, question: Question, *, host: str, port: int, user: str, alias: str, jump: str) -> None:
        self._question, self._home = question, question.home
        here, me = socket.gethostname(), user_name()
        whole = f"{here}{host}{port}{user}{jump}"
        self._tokens: Mapping[str, str] = {
            **{"%": "%", "d": str(self._home), "h": host, "i": str(os.getuid()), "j": jump, "k": alias},
            **{"L": here.partition(".")[0], "l": here, "n": question.host, "p": str(port), "r": user, "u": me},
            "C": hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest(),
        }

    def expand(self, text: str) -> str:
        return _TOKEN.sub(self._value, text)

    def path(self, text: str) -> Path:
        """``~`` is the home folder of the configuration that was asked; ssh writes its defaults with the account's."""
        expanded = self.expand(text)
        if self._question.folder is not None:
            expanded = expanded.replace(f"{own_home()}/.ssh/", "~/.ssh/", 1)
        return self._home / expanded[2:] if expanded.startswith("~/") else with_home(expanded)

    def _value(self, match: re.Match[str]) -> str:
        token, name = match.groups()
        value = self._tokens.get(token) if token else os.environ.get(name)
        if value is None:
            raise SpecError(self._question.asked, f"{match[0]} stands for nothing", "Use the tokens of ssh_config(5)")
        return value


def _records(text: str, words: _Words) -> list[Path]:
    """The files of a line, of which ssh prints names with spaces unquoted: the longest ones that exist are taken."""
    parts = text.split()
    found: list[Path] = []
    while parts and text != "none":
        most = next((n for n in range(len(parts), 0, -1) if words.path(" ".join(parts[:n])).is_file()), 1)
        found.append(words.path(" ".join(parts[:most])))
        parts = parts[most:]
    return found


def _jumps(text: str, target: SshTarget, on_the_way: tuple[str, ...]) -> tuple[Endpoint, ...]:
    """The servers of a ProxyJump line in their order, as ``ssh -J`` goes: the first one is reached as its own
    configuration says, the others through the one before."""
    hops: list[Endpoint] = []
    asked = f"ProxyJump {text} for {target.host}"
    way = (*on_the_way, target.host)
    for item in text.split(","):
        match = _HOP.fullmatch(item.strip())
        if match is None:
            raise SpecError(asked, f"{item!r}", "Write [user@]host[:port]")
        host = match["host"].strip("[]")
        if not hops and (host in way or len(way) > MOST_JUMPS):
            raise SpecError(asked, f"a circle: {' -> '.join((*way, host))}", "Give one of them: ProxyJump none")
        hop = SshTarget(
            host, int(match["port"] or DEFAULT_PORT), match["user"], known_hosts=target.known_hosts, home=target.home
        )
        endpoint = _resolve(hop, direct=bool(hops), on_the_way=way)
        hops += [*endpoint.jumps, endpoint]
    return tuple(hops)


def _identities(target: SshTarget, configured: Sequence[str], words: _Words) -> tuple[Path, ...]:
    """Key files that exist; of a key that the agent holds, the public half alone may be here."""
    if target.identity:
        return (_existing(target.identity, "identity"),)
    named = [words.path(text) for text in configured if text != "none"]
    return tuple(path for path in named if path.is_file() or Path(f"{path}.pub").is_file())


def record_names(host: str, port: int) -> tuple[str, ...]:
    """How known_hosts spells a server: with its port first, unless that is SSH's own."""
    return (host.lower(),) if port == DEFAULT_PORT else (f"[{host.lower()}]:{port}", host.lower())


def user_name() -> str:
    """This user's name, or its number when it has no account (as in containers that run as any user)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def _existing(path: str, key: str) -> Path:
    found = with_home(path)
    if not found.is_file():
        raise SpecError(f"{key} = {path!r}", "there is no such file", "Give the path of a file that exists")
    return found
