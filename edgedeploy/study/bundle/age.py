"""Encryption at rest with age (https://age-encryption.org/v1), in memory: a file that is half decrypted never lies anywhere.

An archive is encrypted with its signature in it, so that it is verified after decryption. Only public keys are needed to
encrypt; no bundle has a key in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import SpecError, TargetUnavailable
from edgedeploy.files import read_plain
from edgedeploy.runtime.bundle.names import MOST_BUNDLE_BYTES

MOST_IDENTITY_BYTES: Final = 10_000
_EXTRA: Final = "pip install 'edgedeploy[sealed]'"


def encrypted(data: bytes, recipients: Sequence[str]) -> bytes:
    """``data`` for whoever has the private key of one of the ``recipients`` (``age1...``). Raises ``SpecError``,
    ``TargetUnavailable``."""
    pyrage = _pyrage("encrypt a bundle")
    try:
        keys = [pyrage.x25519.Recipient.from_str(text) for text in recipients]
    except pyrage.RecipientError as exc:
        raise SpecError("encrypt a bundle", str(exc), "Give public keys of age, which begin with age1") from exc
    return bytes(pyrage.encrypt(data, keys))


def decrypted(path: Path, identity: Path) -> bytes:
    """What ``path`` holds, by the private key in the file ``identity`` (as age-keygen writes it). Raises ``SpecError`` for
    another key and for a file that is damaged anywhere, ``TargetUnavailable``."""
    asked = f"decrypt {path}"
    pyrage = _pyrage(asked)
    try:
        text = read_plain(identity, MOST_IDENTITY_BYTES).decode("ascii")
        sealed = read_plain(path, MOST_BUNDLE_BYTES)
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(asked, str(exc), "Check both paths") from exc
    lines = [line.strip() for line in text.splitlines()]
    try:
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
        return bytes(pyrage.decrypt(sealed, keys))
    except pyrage.IdentityError as exc:
        raise SpecError(asked, f"{identity} holds no key of age", "Make one with age-keygen") from exc
    except pyrage.DecryptError as exc:
        remedy = "Give the identity that it was encrypted for; with that one, the file is damaged: get it again"
        raise SpecError(asked, str(exc), remedy) from exc


def _pyrage(asked: str) -> Any:
    try:
        import pyrage
    except ImportError as exc:
        raise TargetUnavailable(asked, "pyrage is not installed", f"Run {_EXTRA}") from exc
    return pyrage
