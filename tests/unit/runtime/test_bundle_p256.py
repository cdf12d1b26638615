"""Our P-256 against the one of OpenSSL, and the encodings that are refused."""

from __future__ import annotations

import base64
import random

import pytest
import signed_kit as kit
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgedeploy.runtime.bundle.p256 import _N, _P, public_key, verifies
from edgedeploy.runtime.faults import BundleError


def pem(key: ec.EllipticCurvePublicKey, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> bytes:
    return key.public_bytes(Encoding.PEM, form)


def test_it_agrees_with_openssl() -> None:
    rng = random.Random(4)
    for number in range(60):
        private = ec.derive_private_key(rng.choice([1, 2, 3, _N - 1, rng.randrange(1, _N)]), ec.SECP256R1())
        message = rng.randbytes(rng.randrange(200))
        signature = private.sign(message, ec.ECDSA(SHA256()))
        if number % 3 == 1:
            message += b"."
        if number % 3 == 2:
            r, s = decode_dss_signature(signature)
            signature = encode_dss_signature(*rng.choice([(r, _N - s), (s, r), (r, s + 1), (r + 1, s)]))
        try:
            private.public_key().verify(signature, message, ec.ECDSA(SHA256()))
            expected = True
        except InvalidSignature:
            expected = False
        key = public_key(pem(private.public_key()))
        assert verifies(key, message, signature) == expected
        assert key.pem == pem(private.public_key())


def der(*numbers: bytes) -> bytes:
    body = b"".join(b"\x02" + bytes([len(number)]) + number for number in numbers)
    return b"\x30" + bytes([len(body)]) + body


def test_a_signature_has_one_encoding() -> None:
    """All of these hold the numbers of a true signature, or none."""
    private = kit.private_key()
    key, message = public_key(kit.public_pem()), b"message"
    r, s = decode_dss_signature(private.sign(message, ec.ECDSA(SHA256())))
    r_bytes, s_bytes = (number.to_bytes(33, "big").lstrip(b"\0") for number in (r, s))
    r_bytes, s_bytes = (b"\0" * (item[0] >= 0x80) + item for item in (r_bytes, s_bytes))
    true = der(r_bytes, s_bytes)
    assert verifies(key, message, true)
    others = [
        b"",
        b"\x30",
        true + b"\0",
        true[:-1],
        der(b"\0" + r_bytes, s_bytes),
        der(r_bytes, s_bytes, b"\1"),
        der(r_bytes),
        der(b"", s_bytes),
        der(b"\0", s_bytes),
        der(r_bytes, b"\0"),
        der(b"\xff" + r_bytes[1:], s_bytes),
        der(_N.to_bytes(33, "big"), s_bytes),
        der(r_bytes, (s + _N).to_bytes(33, "big")),
        b"\x30\x81" + true[1:],
        b"\x31" + true[1:],
        true.replace(b"\x02", b"\x03", 1),
    ]
    assert [verifies(key, message, other) for other in others] == [False] * len(others)


def spki(x: int, y: int) -> bytes:
    body = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
    text = base64.b64encode(body + x.to_bytes(32, "big") + y.to_bytes(32, "big"))
    return b"-----BEGIN PUBLIC KEY-----\n" + text + b"\n-----END PUBLIC KEY-----\n"


def test_a_key_is_of_the_curve_and_of_one_kind() -> None:
    key = public_key(kit.public_pem())
    assert public_key(kit.public_pem().replace(b"\n", b"\r\n")) == key, "as a mail has it"
    others = [
        spki(key.x, key.y ^ 1),
        spki(0, 0),
        spki(key.x, key.y + _P) if key.y + _P < 2**256 else spki(_P, 1),
        pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
        pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
        kit.public_pem() * 2,
        kit.public_pem().replace(b"PUBLIC KEY", b"CERTIFICATE"),
        kit.public_pem()[:-30],
        kit.public_pem().replace(b"\nMFk", b"\n*Fk"),
    ]
    for other in others:
        with pytest.raises(BundleError, match=r"^untrusted: the trust file"):
            public_key(other)
    with pytest.raises(BundleError, match="private key"):
        public_key(b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n")
