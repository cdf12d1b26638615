"""A bundle as one file, the same bytes each time, and back into a folder; encrypted with age where that is wanted.

An archive (``.tar``, ``.zip``) holds the files as they are, a link (``.edlink``) what a slow line has to carry of them.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError
from edgedeploy.files import disk_told, new_folder, place_told, read_plain, write_new
from edgedeploy.runtime.bundle.archive import read_archive
from edgedeploy.runtime.bundle.names import MOST_BUNDLE_BYTES
from edgedeploy.runtime.bundle.tree import Tree, read_tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle import age, link
from edgedeploy.study.bundle.refused import refusals_told

SUFFIXES: Final = (".tar", ".zip", link.SUFFIX)
AGE_SUFFIX: Final = ".age"

_DOS_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Packing:
    """``base`` is the identity of the bundle that an update is for, empty for none; ``has_weights`` whether the bundle has
    packed weights, without which a link is hardly shorter than its files."""

    size_bytes: int
    bundle_bytes: int
    identity: str
    base: str
    has_weights: bool


def pack(bundle: Path, out: Path, recipients: Sequence[str] = (), base: Path | None = None) -> Packing:
    """Write the bundle as a ustar (``.tar``), stored zip (``.zip``) or packed (``.edlink``, of
    :mod:`~edgedeploy.study.bundle.link`) file; with age ``recipients`` (public keys), and then the further suffix ``.age``,
    so that only they can read it. ``base`` is a bundle that the receiver has: the link is an update of it.

    Equal bundles give equal files; what is encrypted differs each time, as it must. Raises ``SpecError``, ``BundleError``
    for what may be no bundle, ``DataError`` for packed weights that are damaged, ``StorageError``.
    """
    kind = _kind(out, encrypted=bool(recipients))
    if base is not None and kind != link.SUFFIX:
        raise SpecError("--from", f"{out.name} is no update", f"End its name in {link.SUFFIX}, or leave --from out")
    require_outside(out, bundle)
    with refusals_told(f"pack {bundle}"):
        tree = read_tree(bundle)
    before = _base(base, out, "pack an update")
    linked = link.link_of(tree, before) if kind == link.SUFFIX else None
    data = linked.data if linked else as_tar(tree) if kind == ".tar" else as_zip(tree)
    if recipients:
        data = age.encrypted(data, recipients)
    try:
        with place_told(out):
            write_new(out, data)
    except FileExistsError:
        raise SpecError(f"write {out}", "something lies there already", "Give another path, or remove it") from None
    return Packing(
        len(data), tree.size_bytes, tree.identity, before.identity if before else "", link.WEIGHTS in tree.files
    )


def unpack(
    packed: Path,
    out: Path,
    identity: Path | None = None,
    *,
    base: Path | None = None,
    trust: Path | None = None,
) -> int:
    """Write a packed bundle's files into the new folder ``out``, once all of them are known to be those of a bundle. What
    age encrypted is decrypted in memory by the key in the file ``identity``; ``base`` is the bundle that an update is for.
    With the maker's public key ``trust`` nothing is left unless it signed what comes out; without it nothing is verified.
    Returns the files' size in bytes.

    Raises as :func:`pack`, and ``SpecError`` where something lies at ``out``, ``DataError`` for a damaged link and for a
    ``base`` that it is not for.
    """
    if out.exists() or out.is_symlink():
        raise SpecError(f"write {out}", "something lies there already", "Give another path, or remove it")
    tree = _unpacked(packed, identity, lambda: _base(base, out, "unpack an update"))
    with place_told(out), new_folder(out) as part:
        for name, data in tree.files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with disk_told(path):
                path.write_bytes(data)
        if trust is not None:
            with refusals_told(f"unpack {packed}"):
                verify(part, trust)
    return tree.size_bytes


def _unpacked(packed: Path, identity: Path | None, base: Callable[[], Tree | None]) -> Tree:
    if identity is not None:
        data = age.decrypted(packed, identity)
    elif (found := _link(packed)) is not None:
        data = found
    else:
        with refusals_told(f"unpack {packed}"):
            tree = read_tree(packed)
        _require_no_base(base(), packed)
        return tree
    if link.is_link(data):
        return link.tree_of(data, base())
    _require_no_base(base(), packed)
    with refusals_told(f"unpack {packed}"):
        return Tree(read_archive(io.BytesIO(data), len(data)))


def _link(path: Path) -> bytes | None:
    """The bytes of a link; None for another file, of which its reader says what is wrong."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            if not link.is_link(stream.read(len(link.MAGIC))):
                return None
        return read_plain(path, MOST_BUNDLE_BYTES)
    except OSError:
        return None


def _base(base: Path | None, out: Path, asked: str) -> Tree | None:
    """The bundle that the other side has: a folder, an archive, or a link that needs no other bundle."""
    if base is None:
        return None
    require_outside(out, base)
    if (data := _link(base)) is not None:
        return link.tree_of(data)
    with refusals_told(f"{asked}, --from {base}"):
        return read_tree(base)


def _require_no_base(base: Tree | None, packed: Path) -> None:
    if base is not None:
        raise SpecError("--from", f"{packed} is no update of another bundle", "Leave it out")


def as_tar(tree: Tree) -> bytes:
    """Owner, mode and time are the same for all files. Raises ``SpecError`` for a name that ustar has no room for."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(tree.files):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(tree.files[name]), 0o644, 0
            try:
                archive.addfile(member, io.BytesIO(tree.files[name]))
            except ValueError as exc:
                found = f"the name {name!r} has a part that is too long for ustar"
                raise SpecError("pack as .tar", found, "Pack as .zip") from exc
    return buffer.getvalue()


def as_zip(tree: Tree) -> bytes:
    """Nothing is compressed; mode and time are the same for all files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name in sorted(tree.files):
            member = zipfile.ZipInfo(name, _DOS_EPOCH)
            member.create_system = 3  # Unix, whatever this is written on
            member.external_attr = 0o100644 << 16
            archive.writestr(member, tree.files[name])
    return buffer.getvalue()


def require_outside(out: Path, bundle: Path) -> None:
    """Raises ``SpecError`` for an ``out`` inside the bundle, which would be one no longer."""
    if bundle.resolve() in out.resolve().parents:
        raise SpecError(f"write {out}", f"it lies in the bundle {bundle}", "Give a path outside of it")


def _kind(out: Path, *, encrypted: bool) -> str:
    name = out.name
    if encrypted != name.endswith(AGE_SUFFIX):
        found = f"{'a recipient' if encrypted else 'no recipient'} was given"
        raise SpecError(f"write {out}", found, f"Give --recipient and a name that ends in {AGE_SUFFIX}, or neither")
    kind = Path(name.removesuffix(AGE_SUFFIX)).suffix
    if kind not in SUFFIXES:
        raise SpecError(f"write {out}", "its name says no kind of archive", f"End it in {' or '.join(SUFFIXES)}")
    return kind
