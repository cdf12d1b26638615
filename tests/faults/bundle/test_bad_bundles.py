"""Bundles that somebody spoiled, as real files: each is refused for its reason, and nothing is written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import signed_kit as kit
from bundle_mutations import refusal

from edgedeploy.errors import BundleError, SpecError
from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle.pack import pack, unpack
from edgedeploy.study.bundle.sign import keygen, sign

pytestmark = pytest.mark.beside


def tar_of(*members: tarfile.TarInfo, data: bytes = b"evil") -> bytes:
    """A whole bundle, and these members behind it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        for name, content in kit.bundle().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        for member in members:
            member.size = len(data) if member.isreg() else 0
            packed.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_of(*members: tuple[str, bytes, int], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in kit.bundle().items():
            packed.writestr(name, content)
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            packed.writestr(info, content, method)
    return buffer.getvalue()


def link_and_through(folder: str) -> bytes:
    """A link out of the folder, then a file by way of it: how extractors are led elsewhere."""
    return tar_of(tar_member("out", tarfile.SYMTYPE, folder), tar_member("out/owned"))


ARCHIVES: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "tar traversal": (".tar", lambda _: tar_of(tar_member("../owned"))),
    "tar absolute": (".tar", lambda folder: tar_of(tar_member(f"{folder}/owned"))),
    "tar link": (".tar", link_and_through),
    "tar hard link": (".tar", lambda folder: tar_of(tar_member("owned", tarfile.LNKTYPE, f"{folder}/secret"))),
    "tar twice": (".tar", lambda _: tar_of(tar_member(MANIFEST))),
    "tar sparse bomb": (".tar", lambda _: tar_of(tar_member("owned", tarfile.GNUTYPE_SPARSE))),
    "zip traversal": (".zip", lambda _: zip_of(("../owned", b"evil", 0o100644))),
    "zip absolute": (".zip", lambda folder: zip_of((f"{folder}/owned", b"evil", 0o100644))),
    "zip backslash": (".zip", lambda _: zip_of(("..\\owned", b"evil", 0o100644))),
    "zip link": (".zip", lambda folder: zip_of(("out", folder.encode(), 0o120777), ("out/owned", b"evil", 0o100644))),
    "zip bomb": (".zip", lambda _: zip_of(("owned", bytes(100 << 20), 0o100644), method=zipfile.ZIP_DEFLATED)),
    "zip case": (".zip", lambda _: zip_of(("BUNDLE.json", b"{}", 0o100644))),
}


def listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.fault(35)
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_archive_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    """The rest of it is a whole, signed bundle."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("as it was")
    suffix, make = ARCHIVES[name]
    path = tmp_path / f"b{suffix}"
    path.write_bytes(make(str(outside)))
    before = listing(tmp_path)
    assert refusal(lambda: verify(path, kit.public_pem())) == "malformed"
    with pytest.raises(BundleError, match="malformed"):
        unpack(path, tmp_path / "out")
    assert listing(tmp_path) == before


def _giant(folder: Path) -> None:
    """Without a block on the disk: nobody could read it."""
    os.truncate(folder / "recipe.json", 3 << 40)


SPOILED: dict[str, Callable[[Path], object]] = {
    "link to a file": lambda folder: (folder / "a").symlink_to("/etc/passwd"),
    "link to a folder": lambda folder: (folder / "a").symlink_to(folder.parent),
    "second hard link": lambda folder: os.link(folder / "recipe.json", folder.parent / "second"),
    "pipe": lambda folder: os.mkfifo(folder / "a"),
    "sparse giant": _giant,
}


@pytest.mark.fault(35)
@pytest.mark.parametrize("name", SPOILED)
def test_a_folder_with_links_pipes_and_giants_is_refused(name: str, tmp_path: Path) -> None:
    folder = kit.written(tmp_path / "bundle", kit.bundle())
    SPOILED[name](folder)
    assert refusal(lambda: verify(folder, kit.public_pem())) == "malformed"


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    "name", ["extra", "artifact/extra.so", ".git/hooks/post-checkout", ".gitattributes", "a/.github/b"]
)
def test_an_extra_file_is_refused_also_where_git_keeps_its_own(name: str, tmp_path: Path) -> None:
    folder = kit.written(tmp_path / "bundle", {**kit.bundle(), name: b"#!/bin/sh\n"})
    reason = "malformed" if ".git" in name else "tampered"
    assert refusal(lambda: verify(folder, kit.public_pem())) == reason
    if reason == "tampered":
        packed = tmp_path / "b.tar"
        pack(folder, packed)
        assert refusal(lambda: verify(packed, kit.public_pem())) == reason


@pytest.mark.fault(37)
def test_an_old_bundle_is_refused_by_its_release_and_not_made_newer(tmp_path: Path) -> None:
    """Whole and truly signed, it is refused where a newer one is asked for; a newer manifest does not fit its signature."""
    old = kit.written(tmp_path / "old", kit.bundle(release=2))
    assert verify(old, kit.public_pem(), at_least=2).manifest.release == 2
    assert refusal(lambda: verify(old, kit.public_pem(), at_least=3)) == "downgrade"
    kit.written(old, {MANIFEST: kit.manifest(release=4)})
    assert refusal(lambda: verify(old, kit.public_pem(), at_least=3)) == "tampered"
    kit.written(old, {SIGNATURE: kit.bundle(release=4)[SIGNATURE], "recipe.json": b"{} \n"})
    assert refusal(lambda: verify(old, kit.public_pem(), at_least=3)) == "tampered"


@pytest.mark.fault(34)
def test_a_tensorrt_engine_in_a_bundle_is_refused(tmp_path: Path) -> None:
    """Signed by its maker, under the name of a file for another target, and as what it is."""
    files = {**kit.FILES, "artifact/model.onnx": b"ftrt" + bytes(100)}
    hidden = kit.written(tmp_path / "hidden", kit.signed({**files, MANIFEST: kit.manifest(files)}))
    plain = kit.written(tmp_path / "plain", kit.bundle(target="tensorrt"))
    for folder in (hidden, plain):
        assert refusal(lambda place=folder: verify(place, kit.public_pem())) == "malformed"


@pytest.mark.fault(38)
def test_names_with_commands_or_markup_are_inert(tmp_path: Path) -> None:
    """In the manifest, as a file's name, and as the folder's: nothing runs, and no terminal obeys."""
    evil = "$(touch owned);`touch owned`<script>x</script>[bold]\x1b[2J"
    named = kit.written(tmp_path / "named", kit.bundle(name=evil))
    filed = kit.written(tmp_path / "filed", {**kit.bundle(), evil.replace("/", "_"): b""})
    folder = kit.written(tmp_path / evil.replace("/", "_"), kit.bundle())
    trust = tmp_path / "lab.pub"
    trust.write_bytes(kit.public_pem())
    argv = [sys.executable, "-m", "edgedeploy", "verify", "--trust", str(trust)]
    for place, code in ((named, 2), (filed, 2), (folder, 0)):
        done = subprocess.run([*argv, str(place)], capture_output=True, cwd=tmp_path, check=False)
        assert done.returncode == code, done.stderr
        assert b"\x1b[2J" not in done.stdout + (done.stderr if place is not folder else b"")
    assert not list(tmp_path.glob("**/owned"))


@pytest.mark.fault(39)
def test_a_private_key_is_not_signed_into_a_bundle_and_leaves_no_trace(tmp_path: Path) -> None:
    key = tmp_path / "lab.key"
    keygen(key)
    files = {**kit.FILES, MANIFEST: kit.manifest()}
    whole = kit.written(tmp_path / "whole", files)
    sign(whole, key, kit.NAME)
    secret = key.read_bytes()
    pack(whole, tmp_path / "b.tar")
    pieces = [line for line in secret.splitlines() if b"-----" not in line]
    everything = (tmp_path / "b.tar").read_bytes()
    assert not any(piece in everything for piece in pieces)
    for number, text in enumerate((secret, b"x\nAGE-SECRET-KEY-1QQQ\n")):
        folder = kit.written(tmp_path / str(number), {**files, "artifact/notes": text})
        with pytest.raises(SpecError, match=r"'artifact/notes' holds a private key"):
            sign(folder, key, kit.NAME)
        assert not (folder / SIGNATURE).exists()
