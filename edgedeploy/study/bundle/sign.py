"""Signing of bundles, and the keys for it: ECDSA over P-256, the same bytes twice (RFC 6979)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgedeploy.errors import SpecError
from edgedeploy.files import write_atomic
from edgedeploy.runtime.bundle.dsse import Envelope, pae
from edgedeploy.runtime.bundle.names import SIGNATURE
from edgedeploy.runtime.bundle.p256 import public_key
from edgedeploy.runtime.bundle.signature import statement, verify_signature
from edgedeploy.runtime.bundle.tree import Tree, read_tree
from edgedeploy.study.bundle.refused import refusals_told

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

MOST_KEY_BYTES: Final = 10_000
PUBLIC_SUFFIX: Final = ".pub"

_SECRETS: Final = (b"PRIVATE KEY-----", b"AGE-SECRET-KEY-")
"""What stands in files of private keys."""


def keygen(path: Path) -> tuple[Path, str]:
    """A new key pair: the private key at ``path``, which only its owner may read, the public one beside it with
    ``.pub``. Returns the public key's path and id.

    Raises ``SpecError`` where either is there already: no key is ever written over.
    """
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    if not path.name:
        raise SpecError(f"write the key {str(path)!r}", "it names no file", "Give a path such as lab.pem")
    private = ec.generate_private_key(ec.SECP256R1())
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    public = private.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    secret = private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    made = []
    try:
        for place, text, mode in ((path, secret, 0o600), (public_path, public, 0o644)):
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            made.append(place)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as exc:
        for place in made:
            place.unlink(missing_ok=True)
        found = "a file is there already, and keys are never written over" if isinstance(exc, FileExistsError) else None
        asked = f"write the key {exc.filename or path}"
        raise SpecError(asked, found or os.strerror(exc.errno or 0), "Give another path") from exc
    return public_path, public_key(public).key_id


def sign(folder: Path, key: Path, name: str) -> str:
    """Write the signature of all files in ``folder`` into it, in place of an older one. Returns the key's id.

    ``name`` is the subject's, for people. Raises ``SpecError`` for a key that cannot be used and for a folder that holds a
    private key, ``BundleError`` for a folder that may be no bundle.
    """
    private = read_private_key(key)
    with refusals_told(f"sign {folder}"):
        tree = read_tree(folder)
        _refuse_secrets(tree, folder)
        text = signature_of(tree, private, name)
        signed = Tree({**tree.files, SIGNATURE: text})
        key_id = verify_signature(signed, public_pem(private))  # by the other half of the code, before it is handed out
    write_atomic(folder / SIGNATURE, text)
    return key_id


def _refuse_secrets(tree: Tree, folder: Path) -> None:
    """A private key in a bundle goes to everybody who gets the bundle."""
    for name, data in tree.files.items():
        if any(mark in data for mark in _SECRETS):
            raise SpecError(f"sign {folder}", f"{name!r} holds a private key", "Remove it, and make a new key")


def signature_of(tree: Tree, private: EllipticCurvePrivateKey, name: str) -> bytes:
    """The text of the signature file. Equal trees, keys and names give equal bytes."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    payload = statement(tree.digests, name)
    signature = private.sign(pae(payload), ec.ECDSA(SHA256(), deterministic_signing=True))
    return Envelope(payload, signature, public_key(public_pem(private)).key_id).text()


def public_pem(private: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return private.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)


def read_private_key(path: Path) -> EllipticCurvePrivateKey:
    """Raises ``SpecError`` for anything but an unencrypted P-256 private key in PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as stream:
            text = stream.read(MOST_KEY_BYTES)
        private = load_pem_private_key(text, password=None)
    except OSError as exc:
        raise _no_key(path, exc.strerror or str(exc)) from exc
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise _no_key(path, "it is no unencrypted private key in PEM") from exc
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        raise _no_key(path, "it is of another kind than P-256")
    return private


def _no_key(path: Path, found: str) -> SpecError:
    return SpecError(f"sign with the key {path}", found, "Make one with `edgedeploy keygen`")
