"""Host certificates: paramiko receives them without looking at who signed them, so that is done here."""

from __future__ import annotations

import base64
import fnmatch
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization import SSHCertificate

CERT_SUFFIX: Final = "-cert-v01@openssh.com"


@dataclass(frozen=True)
class Checked:
    """``keys`` are the certified key and the authority's; ``problem`` is empty for a certificate that holds."""

    keys: tuple[bytes, ...]
    problem: str


def check_certificate(blob: bytes, host: str, authorities: Sequence[bytes], now_s: float | None = None) -> Checked:
    """Whether ``blob`` is a certificate that one of ``authorities`` gave ``host``, and valid now."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as ssh

    length = int.from_bytes(blob[:4], "big")
    line = blob[4 : 4 + length] + b" " + base64.b64encode(blob)
    try:
        found = ssh.load_ssh_public_identity(line)
    except (ValueError, UnsupportedAlgorithm) as exc:
        return Checked((), f"its certificate cannot be read ({exc})")
    if not isinstance(found, ssh.SSHCertificate):
        return Checked((), "it shows no certificate")
    openssh = (ssh.Encoding.OpenSSH, ssh.PublicFormat.OpenSSH)
    certified, signer = (
        base64.b64decode(key.public_bytes(*openssh).split()[1]) for key in (found.public_key(), found.signature_key())
    )
    now_s = time.time() if now_s is None else now_s
    names = [name.decode("utf-8", errors="replace").lower() for name in found.valid_principals]
    problems = {
        "its certificate is of another authority": signer not in authorities,
        "its certificate is a user's, not a host's": found.type is not ssh.SSHCertificateType.HOST,
        "its certificate has critical options, which a host's may not have": bool(found.critical_options),
        f"its certificate is for {', '.join(names)}": not _named(host.lower(), names),
        "its certificate is not valid now: compare the clocks of both": not (
            found.valid_after <= now_s < found.valid_before
        ),
        "its certificate is forged": not _signed(found),
    }
    return Checked((certified, signer), next((problem for problem, there in problems.items() if there), ""))


def _named(host: str, names: Sequence[str]) -> bool:
    """A certificate without names is for every host of its authority."""
    return not names or any(fnmatch.fnmatchcase(host, name) for name in names)


def _signed(certificate: SSHCertificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_cert_signature()
    except InvalidSignature:
        return False
    return True
