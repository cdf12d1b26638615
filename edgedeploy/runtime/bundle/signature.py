"""Whether a bundle's signature is the trusted key's, over just the files that are there (OpenSSF Model Signing v1.0)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from edgedeploy.runtime.bundle.dsse import read_envelope
from edgedeploy.runtime.bundle.names import MOST_FILES, SIGNATURE
from edgedeploy.runtime.bundle.p256 import public_key, verifies
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.faults import BundleError

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_LEFT_OUT = (SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore")
"""What a signer may leave out: its own file, and names that no bundle has."""

_MOST_NAMED = 3


def statement(digests: Mapping[str, str], name: str) -> bytes:
    """What is signed of the files whose SHA-256 are ``digests``, the signature left out; equal files give equal bytes.

    ``name`` is for people: the specification's digest of the subject has no names in it, so that nothing may be
    identified by it.
    """
    names = sorted((item for item in digests if item != SIGNATURE), key=lambda item: item.split("/"))
    resources = [{"name": item, "digest": digests[item], "algorithm": "sha256"} for item in names]
    value = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root([digests[item] for item in names])}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "resources": resources,
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
        },
    }
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def verify_signature(tree: Tree, public_key_pem: bytes) -> str:
    """The id of the key that signed all files of the tree, which is the given one.

    Raises :class:`BundleError`: ``unsigned``, ``untrusted`` for another key than this, ``tampered`` for a signature that
    is not this key's or for files that are not those which were signed, ``malformed``.
    """
    key = public_key(public_key_pem)
    if SIGNATURE not in tree.files:
        raise BundleError("unsigned", f"it has no {SIGNATURE}")
    envelope = read_envelope(tree.read(SIGNATURE))
    if envelope.key_id != key.key_id:
        found = f"it was signed by the key {envelope.key_id[:16]!r}, the trusted one is {key.key_id[:16]!r}"
        raise BundleError("untrusted", found)
    if not verifies(key, envelope.signed_bytes, envelope.signature):
        raise BundleError("tampered", f"{SIGNATURE} is not what the trusted key signed")
    _compare(_signed_digests(envelope.payload), tree.digests)
    return key.key_id


def _compare(signed: Mapping[str, str], there: Mapping[str, str]) -> None:
    found = {name: digest for name, digest in there.items() if name != SIGNATURE}
    wrong = [f"{name!r} is not signed" for name in sorted(set(found) - set(signed))]
    wrong += [f"{name!r} is missing" for name in sorted(set(signed) - set(found))]
    wrong += [f"{name!r} was changed" for name in sorted(found) if name in signed and signed[name] != found[name]]
    if wrong:
        more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        raise BundleError("tampered", f"{', '.join(wrong[:_MOST_NAMED])}{more}")


def _signed_digests(payload: bytes) -> dict[str, str]:
    """SHA-256 by name, of a payload whose signature held. Raises ``malformed``: its signer did not follow the rules."""
    try:
        value = json.loads(payload.decode("utf-8"), object_pairs_hook=_once)
        resources = _resources(value)
        (subject,) = value["subject"]
        if subject["digest"] != {"sha256": _root(list(resources.values()))}:
            raise ValueError("the digest of its subject is not that of its resources")
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise BundleError("malformed", f"{SIGNATURE}: what was signed is no model ({exc})") from exc
    except RecursionError:
        raise BundleError("malformed", f"{SIGNATURE}: what was signed is nested too deeply") from None
    return resources


def _resources(value: Any) -> dict[str, str]:
    if value["_type"] != _STATEMENT or value["predicateType"] != _PREDICATE:
        raise ValueError("another type of statement")
    predicate = value["predicate"]
    how = dict(predicate["serialization"])
    if not set(how.pop("ignore_paths", [])) <= set(_LEFT_OUT):
        raise ValueError("it leaves out files that a bundle may have")
    if how != {"method": "files", "hash_type": "sha256", "allow_symlinks": False} or how["allow_symlinks"] is not False:
        raise ValueError("another way of hashing")
    if len(predicate["resources"]) > MOST_FILES:
        raise ValueError(f"more than {MOST_FILES} files")
    found: dict[str, str] = {}
    for item in predicate["resources"]:
        if set(item) != {"name", "digest", "algorithm"} or item["algorithm"] != "sha256":
            raise ValueError("a resource of another form")
        if not isinstance(item["name"], str) or item["name"] in found:
            raise ValueError("a resource twice, or without a name")
        found[item["name"]] = item["digest"]
    return found


def _root(digests: list[str]) -> str:
    """The specification's digest over all: names are not in it."""
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found
