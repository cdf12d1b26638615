"""Verification of a bundle: what is accepted, what is refused, and for which reason."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import agent_pythons
import pytest
import signed_kit as kit
from bundle_mutations import CHANGES, NOW, mutated, refusal

from edgedeploy.runtime.bundle.dsse import MOST_SIGNATURE_BYTES, Envelope, pae, read_envelope
from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE, check_names
from edgedeploy.runtime.bundle.signature import statement, verify_signature
from edgedeploy.runtime.bundle.tree import Tree, read_tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.runtime.faults import BUNDLE_REMEDIES, BundleError

REPO = Path(__file__).resolve().parents[3]
MUTATIONS = 203


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    return kit.bundle(not_after="2027-01-01T00:00:00Z")


def test_a_whole_bundle_is_verified(tmp_path: Path, whole: dict[str, bytes]) -> None:
    place = kit.written(tmp_path / "bundle", whole)
    trust = tmp_path / "lab.pub"
    trust.write_bytes(kit.public_pem())
    found = verify(place, trust, now=NOW, at_least=3)
    assert (found.manifest.name, found.manifest.release, found.signer) == (kit.NAME, 3, kit.key_id())
    assert dict(found.tree.files) == whole
    assert verify(place, kit.public_pem()) == found
    assert verify(place, None).signer is None
    descriptor = os.open(place, os.O_RDONLY)
    place.rename(tmp_path / "elsewhere")
    try:
        assert verify(descriptor, trust).identity == found.identity
    finally:
        os.close(descriptor)


def test_two_hundred_mutations_are_refused_each_for_its_reason(tmp_path: Path, whole: dict[str, bytes]) -> None:
    wrong, seen = [], set()
    for number in range(MUTATIONS):
        folder = tmp_path / str(number)
        name, bundle, reasons = mutated(folder, number, whole)
        found = refusal(lambda place=bundle: verify(place, kit.public_pem(), now=NOW, at_least=3))
        seen.add(found)
        if found not in reasons:
            wrong.append((number, name, found, reasons))
        shutil.rmtree(folder)
    assert wrong == []
    assert len(CHANGES) * 7 == MUTATIONS, "every kind seven times"
    assert seen == {*BUNDLE_REMEDIES} - {"unreadable", "incompatible", "wrong_answer", "missing_state"}


def test_a_byte_of_the_signature_file_is_not_flipped_unseen(
    pytestconfig: pytest.Config, whole: dict[str, bytes]
) -> None:
    """Each byte by one bit; by every bit with --long."""
    tree, text, rng = Tree(whole), whole[SIGNATURE], random.Random(5)
    bits = range(8) if pytestconfig.getoption("--long") else (None,)
    found = {"malformed": 0, "untrusted": 0, "tampered": 0}
    for at in range(len(text)):
        for bit in bits:
            data = bytearray(text)
            data[at] ^= 1 << (rng.randrange(8) if bit is None else bit)
            flipped = Tree.__new__(Tree)  # the other files' hashes stay
            object.__setattr__(flipped, "files", {**tree.files, SIGNATURE: bytes(data)})
            object.__setattr__(flipped, "digests", tree.digests)
            found[refusal(lambda tree=flipped: verify_signature(tree, kit.public_pem()))] += 1
    assert sum(found.values()) == len(text) * len(bits)
    assert all(found.values()), found


def resigned(payload: bytes, whole: dict[str, bytes]) -> Tree:
    """The maker's own signature over another payload."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    signature = kit.private_key().sign(pae(payload), ec.ECDSA(SHA256()))
    return Tree({**whole, SIGNATURE: Envelope(payload, signature, kit.key_id()).text()})


def put(value: Any, path: str, new: Any) -> Any:
    *before, last = path.split(".")
    place = value
    for key in before:
        place = place[int(key) if key.isdigit() else key]
    if new is ...:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = new
    return value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("predicateType", "https://model_signing/Digests/v0.1"),
        ("predicateType", ...),
        ("subject", []),
        ("subject", 1),
        ("subject.0.digest.sha256", "0" * 64),
        ("predicate", []),
        ("predicate.resources", {}),
        ("predicate.resources", None),
        ("predicate.resources.0.algorithm", "blake3"),
        ("predicate.resources.0.digest", "0" * 63),
        ("predicate.resources.0.digest", 5),
        ("predicate.resources.0.name", ["a"]),
        ("predicate.resources.1.name", "MODEL_CARD.md"),
        ("predicate.resources.0.more", 1),
        ("predicate.serialization.method", "shards"),
        ("predicate.serialization.hash_type", "blake2b"),
        ("predicate.serialization.allow_symlinks", True),
        ("predicate.serialization.allow_symlinks", 0),
        ("predicate.serialization.shard_size", 5),
        ("predicate.serialization.ignore_paths", ["recipe.json"]),
        ("predicate.serialization.ignore_paths", "model.sig"),
        ("predicate.serialization.ignore_paths", [["model.sig"]]),
        ("predicate.serialization", None),
    ],
)
def test_what_was_signed_by_other_rules_is_refused(path: str, value: Any, whole: dict[str, bytes]) -> None:
    payload = json.loads(read_envelope(whole[SIGNATURE]).payload)
    tree = resigned(json.dumps(put(payload, path, value)).encode(), whole)
    assert refusal(lambda: verify_signature(tree, kit.public_pem())) == "malformed"


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"1", b"null", b"[" * 200_000, b'{"_type": 1, "_type": 1}'])
def test_a_signed_payload_that_is_no_statement_is_refused(payload: bytes, whole: dict[str, bytes]) -> None:
    assert refusal(lambda: verify_signature(resigned(payload, whole), kit.public_pem())) == "malformed"


def test_a_statement_that_says_more_is_accepted(whole: dict[str, bytes]) -> None:
    """The specification leaves room for annotations in the predicate."""
    payload = json.loads(read_envelope(whole[SIGNATURE]).payload)
    payload["predicate"]["annotations"] = {"a": 1}
    assert verify_signature(resigned(json.dumps(payload).encode(), whole), kit.public_pem()) == kit.key_id()


def outer(whole: dict[str, bytes]) -> Any:
    return json.loads(whole[SIGNATURE])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mediaType", "application/vnd.dev.sigstore.bundle.v0.2+json"),
        ("verificationMaterial.publicKey.hint", 5),
        ("verificationMaterial.publicKey.more", 5),
        ("verificationMaterial.tlogEntries", [{}]),
        ("verificationMaterial.tlogEntries", ...),
        ("verificationMaterial.timestamps", []),
        ("dsseEnvelope.payloadType", "application/json"),
        ("dsseEnvelope.payload", "e30"),
        ("dsseEnvelope.payload", "e31="),
        ("dsseEnvelope.payload", None),
        ("dsseEnvelope.signatures", []),
        ("dsseEnvelope.signatures.0.keyid", "a"),
        ("dsseEnvelope.signatures.0.sig", "é"),
        ("dsseEnvelope", []),
        ("more", 1),
    ],
)
def test_an_envelope_of_another_form_is_refused(path: str, value: Any, whole: dict[str, bytes]) -> None:
    text = json.dumps(put(outer(whole), path, value), separators=(",", ":"), ensure_ascii=False).encode()
    with pytest.raises(BundleError, match=r"^malformed: model\.sig"):
        read_envelope(text)


def test_an_envelope_is_read_in_one_form_only(whole: dict[str, bytes]) -> None:
    text = whole[SIGNATURE]
    assert read_envelope(text).text() == text
    two = outer(whole)
    two["dsseEnvelope"]["signatures"] *= 2
    spaced = json.dumps(outer(whole)).encode()
    for other in (text + b"\n", b" " + text, spaced, json.dumps(two, separators=(",", ":")).encode(), b"[" * 9999, b""):
        assert refusal(lambda text=other: read_envelope(text)) == "malformed"
    assert refusal(lambda: read_envelope(b" " * (MOST_SIGNATURE_BYTES + 1))) == "malformed"


def test_the_order_of_a_statement_is_that_of_paths(whole: dict[str, bytes]) -> None:
    """As the reference implementation sorts: by parts, so that a/b comes before a-b."""
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a-b", "a/b", "B", SIGNATURE)}
    payload = json.loads(statement(digests, "x"))
    assert [item["name"] for item in payload["predicate"]["resources"]] == ["B", "a/b", "a-b"]


def test_the_identity_has_the_names_in_it() -> None:
    one, other = Tree({"a": b"1", "b": b"2"}), Tree({"a": b"2", "b": b"1"})
    assert one.identity != other.identity != Tree({"a": b"2", "c": b"1"}).identity
    assert one.identity == Tree({"b": b"2", "a": b"1", SIGNATURE: b"s"}).identity
    text = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in one.files.items()})
    assert one.identity == hashlib.sha256(text.replace(" ", "").encode()).hexdigest()


@pytest.mark.parametrize(
    "names",
    [
        [""],
        ["/a"],
        ["../a"],
        ["a/../b"],
        ["a/./b"],
        ["a//b"],
        ["a/"],
        ["a", "a"],
        ["a", "a/b"],
        ["a/b/c", "a/b"],
        ["a/b", "A/c"],
        ["a.", "b"],
        [".gitmodules"],
        ["a/.Git/b"],
        ["x" * 201],
        ["a\0b"],
        [f"f{number}" for number in range(4097)],
    ],
)
def test_names_that_a_bundle_may_not_have(names: list[str]) -> None:
    assert refusal(lambda: check_names(names)) == "malformed"


def test_names_that_a_bundle_may_have() -> None:
    check_names(["a", "b/a", "b/c/a", "B.x/a-_", "x" * 200, "..a", "a..b", ".hidden", "git"])


def test_a_refusal_says_what_was_found_and_what_to_do() -> None:
    assert "--unsigned" in str(BundleError("unsigned", "it has no model.sig"))  # of commands, as trust=None of Python
    assert str(BundleError("unsigned", "it has no model.sig")).startswith(
        "unsigned: it has no model.sig. Have its maker"
    )
    assert BundleError("expired", "a", "b").as_json() == {"refused": "expired", "message": "a", "remedy": "b"}


@pytest.mark.parametrize("text", [b"", b"x" * 10_001, b"-----BEGIN CERTIFICATE-----\n", kit.public_pem()[:-40]])
def test_a_trust_file_that_is_no_public_key(text: bytes, tmp_path: Path, whole: dict[str, bytes]) -> None:
    trust = tmp_path / "trust"
    trust.write_bytes(text)
    place = kit.written(tmp_path / "bundle", whole)
    assert refusal(lambda: verify(place, trust)) == ("unreadable" if len(text) > 10_000 else "untrusted")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "nowhere", tmp_path / "pipe", Path("/dev/null")):
        assert refusal(lambda place=place: verify(place, None)) == "unreadable"
        assert refusal(lambda place=place: verify(tmp_path, place)) == "unreadable"


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = kit.written(tmp_path / "bundle", {"a": b"12"})
    real = os.fstat

    def grown(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        if stat.S_ISREG(found.st_mode):
            (place / "a").write_bytes(b"123")
        return found

    monkeypatch.setattr("edgedeploy.runtime.bundle.tree.os.fstat", grown)
    assert refusal(lambda: read_tree(place)) == "unreadable"


def test_a_file_that_is_exchanged_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = kit.written(tmp_path / "bundle", {"a": b"12"})
    (tmp_path / "other").write_bytes(b"12")
    real = os.open

    def exchanged(path: Any, flags: int, **more: Any) -> int:
        if path == "a":
            (tmp_path / "other").replace(place / "a")
        return real(path, flags, **more)

    monkeypatch.setattr("edgedeploy.runtime.bundle.tree.os.open", exchanged)
    assert refusal(lambda: read_tree(place)) == "unreadable"


def test_a_manifest_that_does_not_list_a_file_is_refused_unsigned_too(tmp_path: Path) -> None:
    files = {**kit.FILES, MANIFEST: kit.manifest()}
    assert verify(kit.written(tmp_path / "a", files), None).signer is None
    for name, more in (("b", {"extra": b""}), ("c", {"recipe.json": b"{ }\n"})):
        assert refusal(lambda n=name, m=more: verify(kit.written(tmp_path / n, {**files, **m}), None)) == "tampered"


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
def test_a_boards_python_verifies_with_its_standard_library_alone(
    version: str, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    try:
        python, _ = agent_pythons.find(version)
    except agent_pythons.NotHere as exc:
        pytest.skip(str(exc))
    place, trust = kit.written(tmp_path / "bundle", whole), tmp_path / "lab.pub"
    trust.write_bytes(kit.public_pem())
    code = (
        f"import sys; sys.path.insert(0, {str(REPO)!r})\n"
        "from edgedeploy.runtime.bundle.verify import verify\n"
        "print(verify(*sys.argv[1:]).identity, 'numpy' in sys.modules)"
    )
    argv = [python, "-I", "-S", "-c", code, str(place), str(trust)]  # -S: no installed package is seen
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert (done.stderr, done.stdout.split()) == ("", [Tree(whole).identity, "False"])
