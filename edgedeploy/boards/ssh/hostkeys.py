"""Checks a server's host key against the user's known_hosts files. Nothing is ever added to these files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedeploy.errors import HostKeyError

if TYPE_CHECKING:
    import paramiko

_RSA_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True)
class KnownHosts:
    """The keys that the user trusts, from several files in OpenSSH's format (hashed names too). Absent files are empty."""

    files: Sequence[Path]

    def keys_of(self, name: str) -> list[paramiko.PKey]:
        """All keys on record for ``name`` (as :func:`record_name` spells it)."""
        import paramiko

        found: list[paramiko.PKey] = []
        for path in self.files:
            if path.is_file():
                known = paramiko.HostKeys(str(path)).lookup(name)
                found += list(known.values()) if known else []
        return found

    def check(self, name: str, offered: paramiko.PKey, address: str) -> None:
        """Raises ``HostKeyError`` unless ``offered`` is known for ``name``; ``address`` is the address for
        ssh-keyscan."""
        known = self.keys_of(name)
        if any(key.asbytes() == offered.asbytes() for key in known):
            return
        where = ", ".join(str(path) for path in self.files)
        shown = f"{offered.get_name()} {offered.fingerprint}"
        if known:
            on_record = ", ".join(f"{key.get_name()} {key.fingerprint}" for key in known)
            raise HostKeyError(
                f"the host key of {name} on record: {on_record}",
                f"the server shows {shown}",
                "Somebody may be in between. If the board was set up anew, compare the fingerprint on the board itself "
                f"(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then: ssh-keygen -R '{name}' in {where}",
            )
        raise HostKeyError(
            f"the host key of {name} in {where}",
            f"none is on record; the server shows {shown}",
            "Compare the fingerprint on the board itself (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then: "
            f"ssh-keyscan {address} >> {self.files[0]}",
        )


def record_name(host: str, port: int) -> str:
    """How known_hosts spells a server."""
    return host if port == 22 else f"[{host}]:{port}"


def prefer_known(available: Sequence[str], known: Sequence[paramiko.PKey]) -> list[str]:
    """Host key algorithms with those of the keys on record first.

    A server has several keys and offers the algorithm that is asked for first: without this order, a known RSA key and
    an unknown Ed25519 key would look like a changed key.
    """
    wanted: list[str] = []
    for key in known:
        wanted += _RSA_ALGORITHMS if key.get_name() == "ssh-rsa" else [key.get_name()]
    return [name for name in wanted if name in available] + [name for name in available if name not in wanted]
