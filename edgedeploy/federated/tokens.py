"""What a connection between site and coordinator must have: a token that both sides have, and TLS beyond this host."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError
from edgedeploy.files import read_plain

LEAST: Final = 24
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{24,200}")


def token_in(path: Path, asked: str) -> str:
    """The token in a file that its owner alone can read. Raises ``SpecError``."""
    try:
        text = read_plain(path, 1 << 12).decode("ascii").strip()
        mode = path.stat().st_mode & 0o077
    except (OSError, UnicodeDecodeError) as exc:
        found = getattr(exc, "strerror", None) or "it is no plain text"
        raise SpecError(
            asked, f"{path}: {found}", "python -c 'import secrets; print(secrets.token_urlsafe())'"
        ) from None
    if mode:
        raise SpecError(asked, f"others can read {path}", f"chmod 600 {path}")
    if not _TOKEN.fullmatch(text):
        found = f"{path} holds no token of {LEAST} to 200 letters, digits and ._~+/=-"
        raise SpecError(asked, found, "python -c 'import secrets; print(secrets.token_urlsafe())' makes one")
    return text


def is_loopback(host: str) -> bool:
    name = host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
