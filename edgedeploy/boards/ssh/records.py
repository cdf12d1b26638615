"""Lines of known_hosts files, as sshd(8) describes them under SSH_KNOWN_HOSTS FILE FORMAT."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 64 << 20
"""Of one file; a company's have hundreds of thousands of lines."""

_MARKERS: Final = ("@cert-authority", "@revoked")


@dataclass(frozen=True)
class Record:
    """One line. ``hosts`` is its list of patterns or one hashed name; ``blob`` the public key as it goes over the wire,
    ``place`` the file and line."""

    hosts: str
    marker: str
    key_type: str
    blob: bytes
    place: str

    @property
    def revoked(self) -> bool:
        return self.marker == "@revoked"

    @property
    def authority(self) -> bool:
        return self.marker == "@cert-authority"

    @property
    def kind(self) -> str:
        return f"{self.marker} {self.key_type}".strip()

    def matches(self, name: str) -> bool:
        """``name`` as in ``host`` or ``[host]:port``."""
        if self.hosts.startswith("|"):
            _, _, salt, wanted = self.hosts.split("|")
            made = hmac.digest(base64.b64decode(salt), name.encode(), "sha1")
            return hmac.compare_digest(made, base64.b64decode(wanted))
        return matches_patterns(name, self.hosts)


def matches_patterns(name: str, patterns: str) -> bool:
    """Whether a list of patterns with ``*``, ``?`` and ``!`` matches; one negated match outweighs all others."""
    found = False
    for pattern in patterns.lower().split(","):
        matched = _pattern(pattern.removeprefix("!")).fullmatch(name.lower()) is not None
        if matched and pattern.startswith("!"):
            return False
        found = found or matched
    return found


def _pattern(text: str) -> re.Pattern[str]:
    """Only ``*`` and ``?`` are special to OpenSSH: brackets are those of ``[host]:port``."""
    return re.compile(fnmatch.translate(text.replace("[", "[[]")))


def read_records(path: Path) -> tuple[list[Record], list[str]]:
    """The records of a file, and a sentence for each line that is broken. An absent or unreadable file is empty."""
    try:
        with path.open("rb") as stream:
            text = stream.read(LIMIT_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return [], []
    records, broken = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{path}, line {number}"
        try:
            records.append(_record(line.split(), place))
        except (ValueError, IndexError, binascii.Error):
            broken.append(f"{place} is no record of a host key and was skipped")
    return records, broken


def _record(words: list[str], place: str) -> Record:
    """Raises ``ValueError`` or ``IndexError`` for what is no record."""
    marker = words.pop(0) if words[0].startswith("@") else ""
    if marker and marker not in _MARKERS:
        raise ValueError(marker)
    hosts, key_type, blob = words[0], words[1], base64.b64decode(words[2], validate=True)
    length = int.from_bytes(blob[:4], "big")
    if not blob or blob[4 : 4 + length] != key_type.encode():
        raise ValueError(key_type)
    if hosts.startswith("|"):
        _, kind, salt, digest = hosts.split("|")
        if kind != "1" or not base64.b64decode(salt, validate=True) or not base64.b64decode(digest, validate=True):
            raise ValueError(hosts)
    return Record(hosts, marker, key_type, blob, place)


def fingerprint(blob: bytes) -> str:
    return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"
