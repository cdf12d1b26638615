"""The file around a signature: a Sigstore bundle (media type v0.3) with one DSSE envelope and the id of a public key.

Sources: the DSSE protocol v1.0.0 and the OpenSSF Model Signing specification v1.0. What the signature does not cover is
compared exactly, and the file has one form, so that no byte of it can be changed unseen; of each signature there is
a second one, (r, n - s), that anybody can make and that says the same.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from edgedeploy.runtime.bundle.names import SIGNATURE
from edgedeploy.runtime.faults import BundleError

MOST_SIGNATURE_BYTES = 16_000_000

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@dataclass(frozen=True)
class Envelope:
    """``payload`` is what is signed, ``signature`` the DER of the signature over :attr:`signed_bytes`, ``key_id`` names the
    key."""

    payload: bytes
    signature: bytes
    key_id: str

    @property
    def signed_bytes(self) -> bytes:
        return pae(self.payload)

    def text(self) -> bytes:
        """The file: compact JSON, the keys in the order of the reference implementation."""
        value = {
            "mediaType": _MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": self.key_id}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(self.payload).decode("ascii"),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(self.signature).decode("ascii"), "keyid": ""}],
            },
        }
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: type and payload, each with its length."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode("ascii"), len(payload), payload)


def read_envelope(text: bytes) -> Envelope:
    """Raises ``malformed`` for every text that :meth:`Envelope.text` does not write."""
    if len(text) > MOST_SIGNATURE_BYTES:
        raise _malformed(f"it has {len(text)} bytes, at most {MOST_SIGNATURE_BYTES} are read")
    try:
        found = json.loads(text.decode("ascii"))
        inner = found["dsseEnvelope"]
        payload, signature = _decoded(inner["payload"]), _decoded(inner["signatures"][0]["sig"])
        key_id = found["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise _malformed(f"it is no signature of a model ({type(exc).__name__})") from exc
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    if not isinstance(key_id, str):
        raise _malformed("its key has no id")
    envelope = Envelope(payload, signature, key_id)
    if envelope.text() != text:
        raise _malformed("it says more than a signature, or says it in another form")
    return envelope


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError(text)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError(str(exc)) from exc


def _malformed(found: str) -> BundleError:
    return BundleError("malformed", f"{SIGNATURE}: {found}")
