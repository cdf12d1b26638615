"""Whatever bytes come in a bundle: its readers answer with what they are for, or refuse."""

from __future__ import annotations

import functools
import io
import json
from typing import Any

import pytest
import signed_kit as kit
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgedeploy.runtime.bundle.archive import read_archive
from edgedeploy.runtime.bundle.dsse import read_envelope
from edgedeploy.runtime.bundle.manifest import Manifest, parse
from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE, check_name
from edgedeploy.runtime.bundle.p256 import public_key, verifies
from edgedeploy.runtime.bundle.signature import _signed_digests
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.faults import BUNDLE_REMEDIES, BundleError
from edgedeploy.study.bundle.pack import as_tar, as_zip

QUICK = settings(max_examples=150, derandomize=True, database=None, deadline=None)
"""The same inputs each time; what was once found stays as an example."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@functools.cache
def bundle() -> dict[str, bytes]:
    return kit.bundle()


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with every key."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in list(inside) for found in [(value, key), *places(item)]]


@st.composite
def changed(draw: Any, text: bytes) -> bytes:
    """JSON with another value at one or two of its places."""
    value = json.loads(text)
    for _ in range(draw(st.integers(1, 2))):
        found = places(value)
        container, key = found[draw(st.integers(0, len(found) - 1))]
        container[key] = draw(JSON)
    return json.dumps(value, separators=(",", ":")).encode()


@st.composite
def spoiled(draw: Any, data: bytes) -> bytes:
    """Bytes that were cut, doubled or exchanged somewhere."""
    start, stop = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    middle = draw(st.sampled_from([b"", data[start:stop] * 2]) | st.binary(max_size=stop - start + 2))
    return data[:start] + middle + data[stop:]


def manifests() -> st.SearchStrategy[bytes]:
    return st.binary() | spoiled(bundle()[MANIFEST]) | changed(bundle()[MANIFEST])


@QUICK
@given(st.deferred(manifests))
@example(b"[" * 100_000)
@example(b'{"format":"edgedeploy-bundle","version":1e999}')
@example(b'{"format":"edgedeploy-bundle","version":true}')
@example(b'"\\ud800"')
@example(b"9" * 5000)
def test_manifests(text: bytes) -> None:
    try:
        found = parse(text)
    except BundleError as exc:
        assert exc.reason == "malformed" and exc.message.isprintable()
        return
    assert isinstance(found, Manifest) and parse(found.text()) == found


@QUICK
@given(st.deferred(lambda: st.binary() | spoiled(bundle()[SIGNATURE]) | changed(bundle()[SIGNATURE])))
@example(b"[" * 100_000)
@example(
    b'{"dsseEnvelope":{"payload":"","signatures":[{"sig":""}]},"verificationMaterial":{"publicKey":{"hint":"\\ud800"}}}'
)
@example(b'{"dsseEnvelope":{"payload":"\\u00e9","signatures":[{"sig":""}]}}')
@example(b"NaN")
def test_signature_files(text: bytes) -> None:
    try:
        found = read_envelope(text)
    except BundleError as exc:
        assert exc.reason == "malformed" and exc.message.isprintable()
        return
    assert found.text() == text
    verifies(public_key(kit.public_pem()), found.signed_bytes, found.signature)


@QUICK
@given(st.deferred(lambda: st.binary() | changed(read_envelope(bundle()[SIGNATURE]).payload)))
@example(b"[" * 100_000)
@example(b"1e999")
def test_payloads_of_a_signature_that_held(payload: bytes) -> None:
    try:
        found = _signed_digests(payload)
    except BundleError as exc:
        assert exc.reason == "malformed"
        return
    assert all(isinstance(name, str) and isinstance(digest, str) for name, digest in found.items())


@QUICK
@given(st.deferred(lambda: st.binary() | spoiled(as_tar(Tree(bundle()))) | spoiled(as_zip(Tree(bundle())))))
@example(b"PK")
@example(b"PK\x03\x04")
@example(bytes(512))
def test_archives(data: bytes) -> None:
    try:
        found = read_archive(io.BytesIO(data), len(data))
    except BundleError as exc:
        assert exc.reason == "malformed" and exc.message.isprintable()
        return
    assert sum(len(file) for file in found.values()) <= len(data)
    for name in found:
        check_name(name)


@QUICK
@given(st.binary(max_size=80) | st.binary(max_size=72).map(lambda data: b"\x30" + bytes([len(data)]) + data))
def test_signatures_of_chance(data: bytes) -> None:
    assert not verifies(public_key(kit.public_pem()), b"message", data)


@QUICK
@given(st.binary(max_size=200) | st.deferred(lambda: spoiled(kit.public_pem())))
def test_trust_files(text: bytes) -> None:
    try:
        assert public_key(text).pem == kit.public_pem()
    except BundleError as exc:
        assert exc.reason == "untrusted" and exc.message.isprintable()


@pytest.mark.parametrize("reason", BUNDLE_REMEDIES)
def test_every_reason_says_what_to_do(reason: str) -> None:
    assert BundleError(reason, "found").remedy
