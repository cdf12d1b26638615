"""Damaged bundles through what a device reads them by: manifest, signature file, what is signed, archives, trust file."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.shared.mutations import mutate_bytes, mutate_json

sys.path.insert(0, str(ROOT / "tests"))  # signed_kit

from edgedeploy.runtime.bundle.archive import read_archive
from edgedeploy.runtime.bundle.dsse import Envelope, pae, read_envelope
from edgedeploy.runtime.bundle.manifest import parse
from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE
from edgedeploy.runtime.bundle.p256 import public_key
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle.pack import as_tar, as_zip
from edgedeploy.study.bundle.refused import refusals_told

_TRUST = "trust file"
_PAYLOAD = "signed payload"


class Bundles:
    """A whole signed bundle of some KB, one part of it damaged. What is read must be what it was, or be refused."""

    def __init__(self, recording: object, folder: Path) -> None:
        import signed_kit as kit

        self._folder = folder / "bundle"
        self._key = kit.private_key()
        self._trust = kit.public_pem()
        self._files = kit.bundle()
        kit.written(self._folder, self._files)
        tree = Tree(self._files)
        self._archives: Mapping[str, bytes] = {"b.tar": as_tar(tree), "b.zip": as_zip(tree)}
        self._places = [*[MANIFEST] * 4, *[SIGNATURE] * 3, *[_PAYLOAD] * 3, *self._archives, _TRUST]

    def damage(self, rng: random.Random) -> tuple[str, bytes]:
        what = rng.choice(self._places)
        if what in self._archives:
            return what, mutate_bytes(self._archives[what], rng)
        if what == _TRUST:
            return what, mutate_bytes(self._trust, rng)
        whole = read_envelope(self._files[SIGNATURE]).payload if what == _PAYLOAD else self._files[what]
        compact = what == SIGNATURE and rng.randrange(2)  # else it is refused for its form, and looked at no further
        data = mutate_json(json.loads(whole), rng)
        return what, _compact(data) if compact else data

    def read(self, what: str, data: bytes) -> None:
        with refusals_told("read a fuzzed bundle"):
            self._read(what, data)

    def _read(self, what: str, data: bytes) -> None:
        if what in self._archives:
            Tree(read_archive(io.BytesIO(data), len(data)))
        elif what == _TRUST:
            verify(self._folder, data)
        elif what == MANIFEST:
            assert parse(parse(data).text()) == parse(data)
            self._verified({MANIFEST: data}, trust=None)
        elif what == SIGNATURE:
            self._verified({SIGNATURE: data}, trust=self._trust)
            assert data == self._files[SIGNATURE], "another signature file was accepted"
        else:
            self._verified({SIGNATURE: self._signed(data)}, trust=self._trust)

    def _verified(self, files: Mapping[str, bytes], trust: bytes | None) -> Any:
        for name, data in files.items():
            (self._folder / name).write_bytes(data)
        try:
            return verify(self._folder, trust)
        finally:
            for name in files:
                (self._folder / name).write_bytes(self._files[name])

    def _signed(self, payload: bytes) -> bytes:
        """By the maker's key: what a maker who follows other rules may have signed."""
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        signature = self._key.sign(pae(payload), ec.ECDSA(SHA256(), deterministic_signing=True))
        return Envelope(payload, signature, public_key(self._trust).key_id).text()


def _compact(data: bytes) -> bytes:
    try:
        return json.dumps(json.loads(data), separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return data
