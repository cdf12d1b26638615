"""Our signatures and those of the specification's reference implementation, each verified by the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import signed_kit as kit
import signing_peer
from bundle_mutations import refusal

from edgedeploy.runtime.bundle.dsse import read_envelope
from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle.sign import keygen, sign


@pytest.fixture
def key(tmp_path: Path) -> Path:
    try:
        signing_peer.python()
    except signing_peer.NotHere as exc:
        pytest.skip(str(exc))
    keygen(tmp_path / "lab.key")
    return tmp_path / "lab.key"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Names whose order by parts is not that by letters."""
    files = {**kit.FILES, "a-b": b"1", "a/b.c": b"2", "B": b"3"}
    return kit.written(tmp_path / "bundle", {**files, MANIFEST: kit.manifest(files)})


def test_it_verifies_ours_and_refuses_what_was_changed(bundle: Path, key: Path) -> None:
    sign(bundle, key, kit.NAME)
    trust = Path(f"{key}.pub")
    assert signing_peer.used("verify", bundle, trust) == ""
    (bundle / "a-b").write_bytes(b"4")
    assert "a-b" in signing_peer.used("verify", bundle, trust)


def test_we_verify_its_and_refuse_what_was_changed(bundle: Path, key: Path) -> None:
    assert signing_peer.used("sign", bundle, key) == ""
    trust = Path(f"{key}.pub")
    assert verify(bundle, trust).signer
    ours = bundle.parent / "ours"
    kit.written(ours, {p.relative_to(bundle).as_posix(): p.read_bytes() for p in bundle.rglob("*") if p.is_file()})
    sign(ours, key, bundle.name)
    theirs, mine = (json.loads(read_envelope((at / SIGNATURE).read_bytes()).payload) for at in (bundle, ours))
    assert theirs == mine, "the same is signed"
    (bundle / "a-b").write_bytes(b"4")
    assert refusal(lambda: verify(bundle, trust)) == "tampered"


def test_what_it_leaves_out_is_no_bundle(bundle: Path, key: Path) -> None:
    """An empty folder, which it does not see."""
    assert signing_peer.used("sign", bundle, key) == ""
    (bundle / "empty").mkdir()
    assert signing_peer.used("verify", bundle, Path(f"{key}.pub")) == ""
    assert refusal(lambda: verify(bundle, Path(f"{key}.pub"))) == "malformed"
