"""Whether a bundle is whole, and its maker's: signature, then manifest, then every file. Nothing of it is executed."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Union

from edgedeploy.runtime.bundle.manifest import Manifest, moment, parse
from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE
from edgedeploy.runtime.bundle.p256 import MOST_KEY_BYTES
from edgedeploy.runtime.bundle.signature import verify_signature
from edgedeploy.runtime.bundle.tree import Place, Tree, read_tree
from edgedeploy.runtime.faults import BundleError

Trust = Union[str, "os.PathLike[str]", bytes, None]
"""The path of a PEM file with one public key, or its text; None says that the signature is not to be looked at."""

_ENGINES = (b"ftrt", b"ptrt")
"""How the files of TensorRT engines begin."""


@dataclass(frozen=True)
class Verified:
    """A bundle that is whole. ``signer`` is the id of the key that signed it; None when no signature was asked for."""

    tree: Tree
    manifest: Manifest
    identity: str
    signer: str | None


def verify(place: Place, trust: Trust, *, now: datetime | None = None, at_least: int = 0) -> Verified:
    """The bundle at ``place`` (a folder, or an archive of one), read once.

    ``trust`` is the maker's public key. A device's clock may be wrong, so that a bundle's ``not_after`` is held against
    ``now`` only, which has a time zone. Releases before ``at_least`` are refused.

    Raises :class:`BundleError`: ``unsigned``, ``untrusted``, ``tampered``, ``malformed`` (also for what holds a
    TensorRT engine), ``expired``, ``downgrade``, ``unreadable``.
    """
    key = trust if trust is None or isinstance(trust, bytes) else read_trust(trust)
    tree = read_tree(place)
    signer = None if key is None else verify_signature(tree, key)
    manifest = parse(tree.read(MANIFEST))
    _compare(manifest, tree)
    _refuse_engines(manifest, tree)
    if now is not None and manifest.not_after is not None:
        last = moment(manifest.not_after, "not_after").replace(tzinfo=timezone.utc)
        if now > last:
            raise BundleError("expired", f"its maker stands for {manifest.name} until {manifest.not_after} only")
    if manifest.release < at_least:
        found = f"it is release {manifest.release} of {manifest.name}, at least {at_least} is asked for"
        raise BundleError("downgrade", found)
    return Verified(tree, manifest, tree.identity, signer)


def read_trust(path: str | os.PathLike[str]) -> bytes:
    """The text of a trust file. Raises ``unreadable``, also for what is no plain file and for one that is too large."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it is no plain file")
            text = stream.read(MOST_KEY_BYTES + 1)
    except OSError as exc:
        raise BundleError("unreadable", f"the trust file {os.fspath(path)}: {exc.strerror or exc}") from exc
    if len(text) > MOST_KEY_BYTES:
        raise BundleError("unreadable", f"the trust file {os.fspath(path)}: more than {MOST_KEY_BYTES} bytes")
    return text


def _compare(manifest: Manifest, tree: Tree) -> None:
    """An unsigned bundle has no other proof that it is whole."""
    there = set(tree.files) - {MANIFEST, SIGNATURE}
    wrong = [f"{name!r} is not in {MANIFEST}" for name in sorted(there - set(manifest.files))]
    wrong += [f"{name!r} is missing" for name in sorted(set(manifest.files) - there)]
    for name, entry in sorted(manifest.files.items()):
        if name in there and (entry.sha256 != tree.digests[name] or entry.size != len(tree.files[name])):
            wrong.append(f"{name!r} was changed")
    if wrong:
        raise BundleError("tampered", ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if wrong[3:] else ""))


def _refuse_engines(manifest: Manifest, tree: Tree) -> None:
    """A TensorRT engine is native code for the GPU and the release that built it."""
    engines = [repr(name) for name, data in tree.files.items() if data.startswith(_ENGINES)]
    if manifest.target == "tensorrt" and manifest.artifact.kind != "recipe":
        engines.append("its artifact")
    if engines:
        found = f"{engines[0]} is a TensorRT engine, native code for the machine that built it"
        raise BundleError("malformed", found, "Take a bundle with a recipe: the device builds its own engine")
