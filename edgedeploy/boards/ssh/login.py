"""Logs in with public keys: those that are named, then the others of the user's key agent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.boards.ssh.config import Endpoint
from edgedeploy.errors import LoginRefused

if TYPE_CHECKING:
    import paramiko


def log_in(transport: paramiko.Transport, hop: Endpoint) -> None:
    """Raises ``LoginRefused`` with what was tried, and with what the server wants beside a key."""
    import paramiko

    with _Keys(hop) as keys:
        for label, key in keys:
            try:
                more = transport.auth_publickey(hop.user, key)
            except paramiko.BadAuthenticationType as exc:
                raise _unwanted(hop, exc.allowed_types) from exc
            except paramiko.AuthenticationException as exc:
                keys.tried.append(f"{label}: {_text(exc)}")
                if not transport.is_active():
                    raise _cut_off(hop, keys.tried) from exc
            except (paramiko.SSHException, EOFError) as exc:
                raise _cut_off(hop, [*keys.tried, f"{label}: {_text(exc)}"]) from exc
            else:
                if more:
                    raise _second_factor(hop, label, more)
                return
    key_file = hop.identities[0] if hop.identities else "~/.ssh/id_ed25519"
    raise LoginRefused(
        f"log in to {hop.address}",
        f"the server accepts none of the keys ({'; '.join(keys.tried) or 'there is none'})",
        f"Let the board know your key: ssh-copy-id -i {key_file} -p {hop.port} {hop.user}@{hop.host}",
    )


def _unwanted(hop: Endpoint, allowed: list[str]) -> LoginRefused:
    return LoginRefused(
        f"log in to {hop.address}",
        f"the server takes no keys, but {', '.join(allowed) or 'nothing'}",
        "Allow keys for this user in its sshd_config (PubkeyAuthentication yes): passwords are never asked for",
    )


def _second_factor(hop: Endpoint, label: str, more: list[str]) -> LoginRefused:
    return LoginRefused(
        f"log in to {hop.address}",
        f"it accepts {label} and wants {', '.join(more)} too: a second factor, which nobody can give at each connection "
        "of a study",
        "Let this user in with the key alone, in the board's sshd_config: Match User "
        f"{hop.user} and AuthenticationMethods publickey",
    )


def _cut_off(hop: Endpoint, tried: list[str]) -> LoginRefused:
    return LoginRefused(
        f"log in to {hop.address}",
        f"the server ended the connection after {len(tried)} of the keys (its MaxAuthTries): {'; '.join(tried)}",
        "Name the key that it knows, which is then tried first and alone: identity = ... in the board's table",
    )


@dataclass(frozen=True)
class _Agent:
    """``client`` closes the connection to the agent; ``keys`` are what it holds."""

    client: Any
    keys: tuple[Any, ...]

    @classmethod
    def at(cls, place: str | None) -> _Agent:
        """The agent at a socket, or at that of the environment (""). One that is not there holds nothing."""
        import paramiko

        if place is None:
            return cls(None, ())
        try:
            client: Any = paramiko.Agent() if not place else _agent_at(place)
            return cls(client, tuple(client.get_keys()))
        except (OSError, paramiko.SSHException):
            return cls(None, ())

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


def _agent_at(place: str) -> Any:
    """paramiko finds an agent by the environment alone, which all threads share."""
    from paramiko.agent import AgentSSH

    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(place)
    agent: Any = AgentSSH()
    agent._connect(link)
    agent.close = link.close
    return agent


class _Keys:
    """Usable keys in the order they are tried, each with a label: the named ones (from the file, or from the agent where
    the file cannot be used), then what else the agent holds. ``tried`` also collects why others cannot be used."""

    def __init__(self, hop: Endpoint) -> None:
        self._hop = hop
        self._agent = _Agent.at(hop.agent)
        self.tried: list[str] = []

    def __enter__(self) -> _Keys:
        return self

    def __exit__(self, *exc: object) -> None:
        self._agent.close()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        given: set[bytes] = set()
        for path in self._hop.identities:
            public = _public_blob(path)
            held = next((key for key in self._agent.keys if key.asbytes() == public), None)
            for label, key in self._of_file(path, held):
                given.add(key.asbytes())
                yield label, key
        for key in () if self._hop.only_identities else self._agent.keys:
            if key.asbytes() not in given:
                yield f"agent key {key.get_name()} {key.fingerprint}", key

    def _of_file(self, path: Path, held: Any) -> Iterator[tuple[str, Any]]:
        import paramiko

        if held is not None:
            yield f"{path} (held by the key agent)", held
            return
        try:
            key = paramiko.PKey.from_path(path)
        except (paramiko.SSHException, ValueError, TypeError, OSError) as exc:
            hint = f"a key with a passphrase has to be in the key agent: ssh-add {path}"
            self.tried.append(f"{path}: {_text(exc)} ({hint})")
            return
        yield str(path), key


def _public_blob(path: Path) -> bytes | None:
    """Of a key file, from the public half beside it; None where there is none."""
    import base64

    for place in (path, Path(f"{path}.pub")):
        try:
            words = place.read_text(encoding="utf-8", errors="replace").split()
            return base64.b64decode(words[1], validate=True)
        except (OSError, IndexError, ValueError):
            continue
    return None


def _text(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
