"""A bundle as one file: what other programs made is read, and everything but a plain archive of plain files is refused."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import signed_kit as kit
from bundle_mutations import refusal

from edgedeploy.runtime.bundle import archive
from edgedeploy.runtime.bundle.archive import read_archive
from edgedeploy.runtime.bundle.tree import Tree, read_tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle.pack import as_tar, as_zip

WRITERS = {"tar": as_tar, "zip": as_zip}


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(kit.bundle())


def read(data: bytes) -> dict[str, bytes]:
    return read_archive(io.BytesIO(data), len(data))


def why(data: bytes) -> str:
    return refusal(lambda: read(data))


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_is_the_same_bytes_and_gives_the_same_files(kind: str, tree: Tree, tmp_path: Path) -> None:
    data = WRITERS[kind](tree)
    assert data == WRITERS[kind](Tree(dict(reversed(tree.files.items()))))
    assert read(data) == dict(tree.files)
    path = tmp_path / f"b.{kind}"
    path.write_bytes(data)
    assert verify(path, kit.public_pem()).identity == tree.identity == read_tree(path).identity


@pytest.mark.parametrize(
    ("program", "argv"),
    [("tar", ["tar", "--format=ustar", "-cf", "OUT", "."]), ("zip", ["zip", "-qD0r", "OUT", "."])],
)
def test_what_other_programs_made_is_read(program: str, argv: list[str], tree: Tree, tmp_path: Path) -> None:
    """With folders as members, times, owners and modes of their own."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine: apt-get install {program}")
    folder, out = kit.written(tmp_path / "bundle", tree.files), tmp_path / f"out.{program}"
    names = sorted(path.name for path in folder.iterdir())
    subprocess.run([*(str(out) if word == "OUT" else word for word in argv[:-1]), *names], cwd=folder, check=True)
    assert read_tree(out).identity == tree.identity


@pytest.mark.parametrize("kind", WRITERS)
def test_other_programs_read_ours(kind: str, tree: Tree) -> None:
    data = io.BytesIO(WRITERS[kind](tree))
    if kind == "zip":
        with zipfile.ZipFile(data) as opened:
            assert {name: opened.read(name) for name in opened.namelist()} == dict(tree.files)
    else:
        with tarfile.open(fileobj=data) as packed:
            members = {member.name: packed.extractfile(member) for member in packed}
            assert {name: file.read() for name, file in members.items() if file} == dict(tree.files)


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as packed:
        for member, data in members:
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def plain(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def headed(data: bytes, at: int, new: bytes) -> bytes:
    """A first header with other bytes, and the checksum that fits them."""
    header = bytearray(data[:512])
    header[at : at + len(new)] = new
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    return bytes(header) + data[512:]


GOOD = tar((plain("a"), b"data"))

BAD_TARS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no end": lambda: GOOD[:1024],
    "cut": lambda: GOOD[:700],
    "absolute": lambda: tar((plain("/etc/passwd"), b"")),
    "traversal": lambda: tar((plain("../a"), b"")),
    "traversal inside": lambda: tar((plain("a/../../b"), b"")),
    "symbolic link": lambda: tar((plain("a", tarfile.SYMTYPE, "/etc/passwd"), b"")),
    "hard link": lambda: tar((plain("a"), b""), (plain("b", tarfile.LNKTYPE, "a"), b"")),
    "device": lambda: tar((plain("a", tarfile.CHRTYPE), b"")),
    "pipe": lambda: tar((plain("a", tarfile.FIFOTYPE), b"")),
    "twice": lambda: tar((plain("a"), b"1"), (plain("a"), b"2")),
    "case": lambda: tar((plain("a"), b"1"), (plain("A"), b"2")),
    "file and folder": lambda: tar((plain("a"), b"1"), (plain("a/b"), b"2")),
    "git": lambda: tar((plain(".git/config"), b"")),
    "empty folder": lambda: tar((plain("a"), b""), (plain("b", tarfile.DIRTYPE), b"")),
    "bad folder": lambda: tar((plain("../b", tarfile.DIRTYPE), b"")),
    "gnu": lambda: tar((plain("a"), b""), form=tarfile.GNU_FORMAT),
    "pax": lambda: tar((plain("ä" * 90), b""), form=tarfile.PAX_FORMAT),
    "no ASCII": lambda: headed(GOOD, 0, b"\xe4"),
    "name after its end": lambda: headed(GOOD, 50, b"x"),
    "link's target": lambda: headed(GOOD, 157, b"x"),
    "unknown kind": lambda: headed(GOOD, 156, b"Z"),
    "negative size": lambda: headed(GOOD, 124, b"-0000000001\0"),
    "binary size": lambda: headed(GOOD, 124, b"\x80" + b"\0" * 10 + b"\4"),
    "no size": lambda: headed(GOOD, 124, b"\0" * 12),
    "too large": lambda: headed(GOOD, 124, b"77777777777\0"),
    "larger than the file": lambda: headed(GOOD, 124, b"00000100000\0"),
    "checksum": lambda: GOOD[:0] + b"b" + GOOD[1:],
    "padding": lambda: GOOD[:600] + b"x" + GOOD[601:],
    "after the end": lambda: GOOD + b"x" * 512,
    "much after the end": lambda: GOOD + bytes(2 << 20),
    "many": lambda: tar(*((plain(f"f{number}"), b"") for number in range(4097))),
    "many folders": lambda: tar(*((plain(f"f{number}", tarfile.DIRTYPE), b"") for number in range(4097))),
}


@pytest.mark.parametrize("name", BAD_TARS)
def test_a_bad_tar_is_refused(name: str) -> None:
    assert why(BAD_TARS[name]()) == "malformed"


def test_the_tar_that_the_bad_ones_are_made_of_is_good() -> None:
    assert read(GOOD) == {"a": b"data"} == read(headed(GOOD, 0, b"a"))


def zipped(*members: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        for member, data in members:
            packed.writestr(member, data, method)
    return buffer.getvalue()


def with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, mode << 16
    return member


def exchanged(data: bytes, old: bytes, new: bytes, *, last: bool = False) -> bytes:
    assert old in data
    if last:
        before, _, after = data.rpartition(old)
        return before + new + after
    return data.replace(old, new, 1)


def overlapping() -> bytes:
    """Two names for the bytes of one member: what a zip bomb is made of."""
    one = zipped(("a", b"data"), ("b", b"data"))
    second = one.index(b"PK\x03\x04", 4)
    return exchanged(one, second.to_bytes(4, "little") + b"b", (0).to_bytes(4, "little") + b"b", last=True)


STORED = zipped(("a", b"data"))

BAD_ZIPS: dict[str, Callable[[], bytes]] = {
    "cut": lambda: STORED[:-1],
    "head only": lambda: b"PK",
    "no directory": lambda: STORED[: STORED.index(b"PK\x01\x02")],
    "empty": lambda: zipped() + b"x",
    "absolute": lambda: zipped(("/a", b"")),
    "traversal": lambda: zipped(("../a", b"")),
    "backslash": lambda: zipped(("..\\a", b"")),
    "folder": lambda: zipped(("a/", b"")),
    "name cut at a NUL": lambda: exchanged(zipped(("axb", b"")), b"axb", b"a\0b"),
    "link": lambda: zipped((with_mode("a", 0o120777), b"/etc/passwd")),
    "device": lambda: zipped((with_mode("a", 0o020666), b"")),
    "case": lambda: zipped(("a", b"1"), ("A", b"2")),
    "twice": lambda: zipped(("a", b"1"), ("b", b"2")).replace(b"b", b"a"),
    "deflated": lambda: zipped(("a", bytes(10_000)), method=zipfile.ZIP_DEFLATED),
    "bomb": lambda: zipped(("a", bytes(50 << 20)), method=zipfile.ZIP_DEFLATED),
    "overlapping": overlapping,
    "another name in the directory": lambda: exchanged(STORED, b"\0a", b"\0b", last=True),
    "damaged": lambda: exchanged(STORED, b"data", b"dbta"),
    "something in front": lambda: b"x" + STORED,
    "something behind": lambda: STORED + b"x",
    "comment": lambda: STORED[:-2] + b"\1\0x",
    "another count": lambda: STORED[:-12] + b"\2\0" + STORED[-10:],
    "encrypted": lambda: STORED[:6] + b"\1" + STORED[7:],
    "size unknown": lambda: STORED[:6] + b"\x08" + STORED[7:],
    "larger than the file": lambda: STORED[:18] + b"\xff\xff\xff\0" * 2 + STORED[26:],
}


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_a_bad_zip_is_refused(name: str) -> None:
    assert why(BAD_ZIPS[name]()) == "malformed"


@pytest.mark.parametrize("head", archive._COMPRESSED)
def test_a_packed_archive_is_refused_by_name(head: bytes) -> None:
    assert why(head + bytes(1000)) == "malformed"


def test_an_archive_that_is_too_large_is_not_read() -> None:
    class Unread(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise AssertionError("it was read")

    assert refusal(lambda: read_archive(Unread(), (4 << 30) + 1)) == "malformed"


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_archive_is_refused_or_gives_the_same_files(kind: str, tree: Tree) -> None:
    """Times and owners may be other ones; names and bytes may not, but for those of a tar that the signature is for."""
    data, rng = WRITERS[kind](tree), random.Random(6)
    ends = set()
    for _ in range(3000):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        reason = refusal(lambda data=bytes(damaged): Tree(read(data)))
        assert reason in ("", "malformed")
        if not reason and kind == "zip":
            assert read(bytes(damaged)) == dict(tree.files)
        ends.add(reason)
    assert ends == {"", "malformed"}
