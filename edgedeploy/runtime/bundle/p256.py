"""ECDSA over the curve P-256 with SHA-256, verification alone, in the standard library: a device needs no package for it.

Nothing here is secret, so nothing has to take constant time. Sources: FIPS 186-5 section 6.4.2 (verification), SEC 1
section 2.3 (points) and RFC 5480 (the key's encoding). Encodings have one form each; any other is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Tuple

from edgedeploy.runtime.faults import BundleError

MOST_KEY_BYTES = 10_000

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200") + b"\x04"
"""What stands before the two coordinates in the DER of every uncompressed P-256 public key (RFC 5480)."""

_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
_LINE = 64

_Jacobian = Tuple[int, int, int]
"""(X, Y, Z) is the point (X / Z^2, Y / Z^3); Z = 0 is the point at infinity."""


@dataclass(frozen=True)
class PublicKey:
    """A point of the curve."""

    x: int
    y: int

    @property
    def pem(self) -> bytes:
        """The one text of this key, as OpenSSL writes it."""
        text = base64.b64encode(_SPKI + self.x.to_bytes(32, "big") + self.y.to_bytes(32, "big"))
        lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
        return b"\n".join([_BEGIN, *lines, _END, b""])

    @property
    def key_id(self) -> str:
        """SHA-256 of :attr:`pem` in hex: how a signature names the key that made it."""
        return hashlib.sha256(self.pem).hexdigest()


def public_key(pem: bytes) -> PublicKey:
    """The key in a PEM text. Raises ``untrusted`` for anything but one P-256 public key."""
    if len(pem) > MOST_KEY_BYTES:
        raise _no_key(f"has {len(pem)} bytes, at most {MOST_KEY_BYTES} are read")
    lines = pem.split()
    words = b" ".join(lines)
    if b"PRIVATE KEY" in words:
        raise _no_key("holds a private key, which belongs to its maker alone: give the public one")
    begin, end = _BEGIN.split(), _END.split()
    size = len(begin)
    if lines[:size] != begin or lines[-size:] != end or len(lines) <= 2 * size:
        raise _no_key("is no PEM file of one public key")
    try:
        der = base64.b64decode(b"".join(lines[size:-size]), validate=True)
    except binascii.Error as exc:
        raise _no_key(f"is damaged ({exc})") from exc
    if len(der) != len(_SPKI) + 64 or not der.startswith(_SPKI):
        raise _no_key("holds a key of another kind: only uncompressed P-256 keys sign bundles")
    x, y = (int.from_bytes(der[at : at + 32], "big") for at in (len(_SPKI), len(_SPKI) + 32))
    if x >= _P or y >= _P or (y * y - x * x * x + 3 * x - _B) % _P:
        raise _no_key("is damaged: its point does not lie on the curve")
    return PublicKey(x, y)


def _no_key(found: str) -> BundleError:
    remedy = "Give the public key that `edgedeploy keygen` wrote, from a source that you trust"
    return BundleError("untrusted", f"the trust file {found}", remedy)


def verifies(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether ``signature``, in strict DER, is the key's over ``message``."""
    numbers = _der_pair(signature)
    if numbers is None:
        return False
    r, s = numbers
    if not (1 <= r < _N and 1 <= s < _N):
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(s, -1, _N)
    x, _, z = _sum_of_products(digest * inverse % _N, _G, r * inverse % _N, (key.x, key.y))
    if z == 0:
        return False
    return x * pow(z * z, -1, _P) % _P % _N == r


def _der_pair(der: bytes) -> tuple[int, int] | None:
    """Two positive integers in a sequence, as DER writes them; None for any other bytes."""
    if len(der) < 2 or der[0] != 0x30 or der[1] != len(der) - 2:
        return None
    found = []
    at = 2
    for _ in range(2):
        if at + 2 > len(der) or der[at] != 0x02:
            return None
        body = der[at + 2 : at + 2 + der[at + 1]]
        padded = len(body) > 1 and body[0] == 0 and body[1] < 0x80
        if len(body) != der[at + 1] or not 1 <= len(body) <= 33 or body[0] >= 0x80 or padded:
            return None
        found.append(int.from_bytes(body, "big"))
        at += 2 + len(body)
    return (found[0], found[1]) if at == len(der) else None


def _sum_of_products(a: int, first: tuple[int, int], b: int, second: tuple[int, int]) -> _Jacobian:
    """a * first + b * second, both at once from the highest bit down (Shamir)."""
    one, other = (*first, 1), (*second, 1)
    both = _add(one, other)
    total: _Jacobian = (0, 1, 0)
    for bit in range(max(a.bit_length(), b.bit_length()) - 1, -1, -1):
        total = _double(total)
        which = (a >> bit & 1) | (b >> bit & 1) << 1
        if which:
            total = _add(total, (one, other, both)[which - 1])
    return total


def _double(point: _Jacobian) -> _Jacobian:
    x, y, z = point
    if z == 0:
        return point
    squared = y * y % _P
    s = 4 * x * squared % _P
    m = 3 * (x - z * z) * (x + z * z) % _P
    new_x = (m * m - 2 * s) % _P
    return new_x, (m * (s - new_x) - 8 * squared * squared) % _P, 2 * y * z % _P


def _add(first: _Jacobian, second: _Jacobian) -> _Jacobian:
    (x1, y1, z1), (x2, y2, z2) = first, second
    if z1 == 0:
        return second
    if z2 == 0:
        return first
    z1z1, z2z2 = z1 * z1 % _P, z2 * z2 % _P
    u1, u2 = x1 * z2z2 % _P, x2 * z1z1 % _P
    s1, s2 = y1 * z2 * z2z2 % _P, y2 * z1 * z1z1 % _P
    h, r = (u2 - u1) % _P, (s2 - s1) % _P
    if h == 0:
        return _double(first) if r == 0 else (0, 1, 0)
    hh = h * h % _P
    hhh, v = h * hh % _P, u1 * hh % _P
    x3 = (r * r - hhh - 2 * v) % _P
    return x3, (r * (v - x3) - s1 * hhh) % _P, h * z1 * z2 % _P
