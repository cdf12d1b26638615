"""Checks a server's host key against the user's known_hosts files. Nothing is ever added to these files.

The files are read as OpenSSH reads them: patterns, hashed names, ``@cert-authority`` and ``@revoked``. Every line that can
match is compared as bytes, so that key types which paramiko does not know do no harm; a broken line is skipped, and said.
"""

from __future__ import annotations

import base64
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgedeploy.boards.ssh.certificates import CERT_SUFFIX, check_certificate
from edgedeploy.boards.ssh.openssh import ANSWER_S
from edgedeploy.boards.ssh.records import Record, fingerprint, read_records
from edgedeploy.errors import HostKeyError

if TYPE_CHECKING:
    import paramiko

_RSA_ALGORITHMS: Final = ("rsa-sha2-512", "rsa-sha2-256")
_ON_THE_BOARD: Final = "Compare the fingerprint on the board itself (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)"
_KRL_MAGIC: Final = b"SSHKRL\n\0"
_log = logging.getLogger(__name__)
_said: set[str] = set()


@dataclass(frozen=True)
class KnownHosts:
    """What the user trusts, from several files in OpenSSH's format. Absent files are empty.

    ``names`` are how the server may be spelled, the last one without its port: that is looked for where the one before
    has no key on record, and it is the name that a certificate has to hold. So does OpenSSH.
    """

    files: Sequence[Path]
    names: Sequence[str]
    revoked_keys: Path | None = None

    def trusted(self) -> list[Record]:
        """Keys and certificate authorities on record for the first name that has any."""
        for name in self.names:
            found = [record for record in self._of(name) if not record.revoked]
            if found:
                return found
        return []

    def _of(self, name: str) -> Iterator[Record]:
        for path in self.files:
            records, broken = read_records(path)
            for line in broken:
                if line not in _said:
                    _said.add(line)
                    _log.warning("%s", line)
            yield from (record for record in records if record.matches(name))

    def check(self, offered: paramiko.PKey, address: str) -> None:
        """Raises ``HostKeyError`` unless ``offered`` is known and not revoked; ``address`` is the one for ssh-keyscan."""
        blob, name = offered.asbytes(), self.names[0]
        shown = f"{offered.get_name()} {fingerprint(blob)}"
        self._refuse_revoked(blob, shown)
        trusted = self.trusted()
        keys = [record for record in trusted if not record.authority]
        authorities = [record for record in trusted if record.authority]
        if any(record.blob == blob for record in keys):
            return
        why = ""
        if authorities and offered.public_blob is not None:
            signed_by = [record.blob for record in authorities]
            certificate = check_certificate(offered.public_blob.key_blob, self.names[-1], signed_by)
            for part in certificate.keys:
                self._refuse_revoked(part, f"a certificate of {fingerprint(part)}")
            if not certificate.problem:
                return
            why = f": {certificate.problem}"
        elif authorities:
            why = ", and no certificate of the authority on record"
        where = ", ".join(str(path) for path in self.files)
        if trusted:
            on_record = ", ".join(f"{record.kind} {fingerprint(record.blob)}" for record in trusted)
            raise HostKeyError(
                f"the host key of {name} on record: {on_record}",
                f"the server shows {shown}{why}",
                f"Somebody may be in between. If the board was set up anew: {_ON_THE_BOARD[0].lower()}{_ON_THE_BOARD[1:]}, "
                f"then: ssh-keygen -R '{name}' in {where}",
            )
        plain = len(self.names) > 1 or ":" in name or name in address
        scan = f"ssh-keyscan {address}" + ("" if plain else f" | sed 's/^[^ ]*/{name}/'")
        raise HostKeyError(
            f"the host key of {name} in {where}",
            f"none is on record; the server shows {shown}",
            f"{_ON_THE_BOARD}, then: {scan} >> {self.files[0]}",
        )

    def _refuse_revoked(self, blob: bytes, shown: str) -> None:
        if self.revoked_keys is not None and is_in_revocation_list(blob, self.revoked_keys):
            raise _revoked(self.names[0], shown, str(self.revoked_keys))
        for name in self.names:
            for record in self._of(name):
                if record.revoked and record.blob == blob:
                    raise _revoked(name, shown, record.place)


def _revoked(name: str, shown: str, place: str) -> HostKeyError:
    return HostKeyError(
        f"the host key of {name}",
        f"the server shows {shown}, which {place} has revoked",
        "Do not connect: give the board a new host key (ssh-keygen -A there), or ask who revoked it",
    )


def is_in_revocation_list(blob: bytes, path: Path) -> bool:
    """Whether RevokedHostKeys, a list of keys or OpenSSH's binary one (KRL), has a key. As with ssh, one that cannot be
    read refuses every key. Raises ``HostKeyError`` for a KRL where there is no ssh-keygen to ask."""
    try:
        content = path.read_bytes()
    except OSError:
        return True
    length = int.from_bytes(blob[:4], "big")
    words = [blob[4 : 4 + length], base64.b64encode(blob)]
    if not content.startswith(_KRL_MAGIC):
        return any(words[1] in line.split() for line in content.splitlines() if not line.lstrip().startswith(b"#"))
    program = shutil.which("ssh-keygen")
    if program is None:
        raise HostKeyError(f"RevokedHostKeys {path}", "there is no ssh-keygen to read it", "Install OpenSSH's client")
    with tempfile.NamedTemporaryFile(suffix=".pub") as key:
        key.write(b" ".join(words) + b"\n")
        key.flush()
        argv = [program, "-Q", "-f", str(path), key.name]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_S, check=False)
    return done.returncode != 0


def prefer_known(available: Sequence[str], known: Sequence[Record]) -> list[str]:
    """Host key algorithms with those of the keys on record first, and certificates before them where an authority is.

    A server has several keys and offers the algorithm that is asked for first: without this order, a known RSA key and
    an unknown Ed25519 key would look like a changed key.
    """
    wanted: list[str] = []
    if any(record.authority for record in known):
        wanted += [f"{name}{CERT_SUFFIX}" for name in available if f"{name}{CERT_SUFFIX}" not in available]
    for record in known:
        if not record.authority:
            wanted += _RSA_ALGORITHMS if record.key_type == "ssh-rsa" else [record.key_type]
    wanted = [name for name in wanted if name in available or name.endswith(CERT_SUFFIX)]
    return list(dict.fromkeys([*wanted, *available]))
