"""Keys, signatures and packed bundles on the host."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import signed_kit as kit
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.errors import BundleError, SpecError
from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle.check import check_bundle
from edgedeploy.study.bundle.hand_over import hand_over
from edgedeploy.study.bundle.pack import pack, unpack
from edgedeploy.study.bundle.sign import keygen, sign


@pytest.fixture
def key(tmp_path: Path) -> Path:
    keygen(tmp_path / "lab.key")
    return tmp_path / "lab.key"


@pytest.fixture
def unsigned(tmp_path: Path) -> Path:
    return kit.written(tmp_path / "bundle", {**kit.FILES, MANIFEST: kit.manifest()})


def test_a_key_is_its_owners_alone_and_never_written_over(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        public, key_id = keygen(tmp_path / "lab.key")
    finally:
        os.umask(before)
    private = tmp_path / "lab.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600 and len(key_id) == 64
    held = private.read_bytes(), public.read_bytes()
    private.rename(tmp_path / "kept")
    for there in (tmp_path / "kept", public):
        with pytest.raises(SpecError, match="never written over"):
            keygen(there.with_name("kept" if there.name == "kept" else "lab.key"))
    assert ((tmp_path / "kept").read_bytes(), public.read_bytes()) == held
    assert not private.exists(), "half a pair is none"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpecError):
        keygen(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_is_signed_in_the_same_bytes_twice(unsigned: Path, key: Path) -> None:
    key_id = sign(unsigned, key, kit.NAME)
    first = (unsigned / SIGNATURE).read_bytes()
    assert sign(unsigned, key, kit.NAME) == key_id and (unsigned / SIGNATURE).read_bytes() == first
    assert verify(unsigned, Path(f"{key}.pub")).signer == key_id


def test_what_may_be_no_bundle_is_not_signed(unsigned: Path, key: Path) -> None:
    (unsigned / ".gitignore").write_text("")
    with pytest.raises(BundleError, match="malformed"):
        sign(unsigned, key, kit.NAME)
    assert not (unsigned / SIGNATURE).exists()


@pytest.mark.parametrize("text", [b"", b"x" * 20_000, kit.public_pem()])
def test_a_key_that_cannot_sign(text: bytes, unsigned: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(text)
    with pytest.raises(SpecError, match="edgedeploy keygen"):
        sign(unsigned, path, kit.NAME)
    with pytest.raises(SpecError):
        sign(unsigned, tmp_path / "nowhere", kit.NAME)


def test_keys_of_other_kinds_do_not_sign(unsigned: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    for private in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        path = tmp_path / "other"
        path.write_bytes(private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
        with pytest.raises(SpecError, match="P-256"):
            sign(unsigned, path, kit.NAME)


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/below", "FILE/below"])
def test_a_place_that_nothing_can_be_written_at_is_the_users_mistake(
    place: str, unsigned: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    out = Path(place.replace("FILE", str(tmp_path / "file")))
    pack(unsigned, tmp_path / "b.tar")
    acts = [lambda: pack(unsigned, out.with_suffix(".tar")), lambda: unpack(tmp_path / "b.tar", out)]
    for act in [*acts, lambda: hand_over(unsigned, "oci", out, None)]:
        with pytest.raises(SpecError, match=str(out)):
            act()


def test_a_bundle_without_a_portable_model_is_told_so(unsigned: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no portable model \(model/reference.onnx\).*as oci"):
        hand_over(unsigned, "monai", tmp_path / "m", None)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("recipe", [b"{}", b"", b"[]", b'{"study_versions": 7}', b"[" * 9000])
def test_a_recipe_of_another_maker(recipe: bytes, tmp_path: Path) -> None:
    files = {**kit.FILES, "model/reference.onnx": b"network", "recipe.json": recipe}
    folder = kit.written(tmp_path / "bundle", {**files, MANIFEST: kit.manifest(files)})
    if recipe == b"{}":
        hand_over(folder, "monai", tmp_path / "m", None)
        return
    with pytest.raises(BundleError, match=r"recipe\.json is none that"):
        hand_over(folder, "monai", tmp_path / "m", None)


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_a_bundle_goes_through_an_archive(suffix: str, unsigned: Path, key: Path, tmp_path: Path) -> None:
    sign(unsigned, key, kit.NAME)
    packed = tmp_path / f"b{suffix}"
    pack(unsigned, packed)
    pack(unsigned, tmp_path / f"again{suffix}")
    assert packed.read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    unpack(packed, tmp_path / "out")
    trust = Path(f"{key}.pub")
    assert check_bundle(tmp_path / "out", trust) == check_bundle(packed, trust) == check_bundle(unsigned, trust)
    for act in (lambda: unpack(packed, tmp_path / "out"), lambda: pack(unsigned, packed)):
        with pytest.raises(SpecError, match="lies there already"):
            act()


def test_names_of_archives_say_what_they_are(unsigned: Path, tmp_path: Path) -> None:
    for name in ("b", "b.tar.gz", "b.tar.age"):
        with pytest.raises(SpecError):
            pack(unsigned, tmp_path / name)
    with pytest.raises(SpecError):
        pack(unsigned, tmp_path / "b.tar", ["age1"])
    (unsigned / ("x" * 150)).write_bytes(b"")
    with pytest.raises(SpecError, match=r"\.zip"):
        pack(unsigned, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


def test_an_encrypted_bundle_is_its_recipients(unsigned: Path, tmp_path: Path) -> None:
    pyrage = pytest.importorskip("pyrage")
    keys = [pyrage.x25519.Identity.generate() for _ in range(3)]
    for number, key in enumerate(keys):
        (tmp_path / f"id{number}").write_text(f"# created: today\n{key}\n")
    packed = tmp_path / "b.tar.age"
    pack(unsigned, packed, [str(key.to_public()) for key in keys[:2]])
    assert b"MODEL_CARD" not in packed.read_bytes()
    for number in range(2):
        unpack(packed, tmp_path / f"out{number}", tmp_path / f"id{number}")
        assert verify(tmp_path / f"out{number}", None).identity == verify(unsigned, None).identity
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SpecError):
        unpack(packed, tmp_path / "out", tmp_path / "id2")
    data = packed.read_bytes()
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), data[:100], b""):
        packed.write_bytes(damaged)
        with pytest.raises(SpecError):
            unpack(packed, tmp_path / "out", tmp_path / "id0")
    with pytest.raises(SpecError, match="no key of age"):
        unpack(packed, tmp_path / "out", unsigned / "recipe.json")
    with pytest.raises(SpecError, match="age1"):
        pack(unsigned, tmp_path / "c.zip.age", ["age1nobody"])
    with pytest.raises(BundleError, match="encrypted with age"):
        packed.write_bytes(data)
        unpack(packed, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "no plaintext is left of a failure"


def run(*words: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "edgedeploy", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_the_command_line_signs_packs_and_verifies(unsigned: Path, tmp_path: Path) -> None:
    runner = CliRunner()

    def told(*words: str) -> str:
        done = runner.invoke(app, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    key, packed, out = (str(tmp_path / name) for name in ("k", "b.zip", "out"))
    assert "key id" in told("keygen", key)
    sign(unsigned, Path(key), kit.NAME)
    told("pack", str(unsigned), packed)
    told("unpack", packed, out)
    assert "signed by" in told("verify", out, "--trust", f"{key}.pub", "--at-least", "3", "--on", "2026-11-29")
    assert '"signer": null' in told("verify", packed, "--unsigned", "--json")
    for words in (["verify", out], ["verify", out, "--trust", key, "--unsigned"]):
        with pytest.raises(SpecError, match="--unsigned"):
            runner.invoke(app, words, catch_exceptions=False)
    with pytest.raises(SpecError, match="2026-01-31"):
        runner.invoke(app, ["verify", out, "--unsigned", "--on", "20260131"], catch_exceptions=False)


def test_a_refusal_is_one_line_and_exit_code_2(unsigned: Path, key: Path) -> None:
    code, text = run("verify", str(unsigned), "--trust", f"{key}.pub")
    assert code == 2 and text.startswith("error: verify ") and "unsigned: it has no model.sig" in text
    assert "Traceback" not in text and len(text.splitlines()) == 1


def test_nothing_is_written_into_a_bundle(unsigned: Path) -> None:
    before = sorted(unsigned.rglob("*"))
    with pytest.raises(SpecError, match="lies in the bundle"):
        pack(unsigned, unsigned / "in.tar")
    with pytest.raises(SpecError, match="lies in the bundle"):
        hand_over(unsigned, "oci", unsigned / "layout", None)
    assert sorted(unsigned.rglob("*")) == before


def test_a_key_has_a_name() -> None:
    with pytest.raises(SpecError, match="names no file"):
        keygen(Path())
