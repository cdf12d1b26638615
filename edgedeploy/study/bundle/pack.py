"""A bundle as one file, the same bytes each time, and back into a folder; encrypted with age where that is wanted."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError
from edgedeploy.files import disk_told, new_folder, place_told, write_new
from edgedeploy.runtime.bundle.archive import read_archive
from edgedeploy.runtime.bundle.tree import Tree, read_tree
from edgedeploy.study.bundle import age
from edgedeploy.study.bundle.refused import refusals_told

SUFFIXES: Final = (".tar", ".zip")
AGE_SUFFIX: Final = ".age"

_DOS_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def pack(bundle: Path, out: Path, recipients: Sequence[str] = ()) -> int:
    """Write the bundle as a ustar (``.tar``) or stored zip (``.zip``) archive; with age ``recipients`` (public keys), and
    then the further suffix ``.age``, so that only they can read it. Returns the file's size in bytes.

    Equal bundles give equal archives; what is encrypted differs each time, as it must. Raises ``SpecError``, ``BundleError``
    for what may be no bundle, ``StorageError``.
    """
    kind = _kind(out, encrypted=bool(recipients))
    require_outside(out, bundle)
    with refusals_told(f"pack {bundle}"):
        tree = read_tree(bundle)
    data = (as_tar if kind == ".tar" else as_zip)(tree)
    if recipients:
        data = age.encrypted(data, recipients)
    try:
        with place_told(out):
            write_new(out, data)
    except FileExistsError:
        raise SpecError(f"write {out}", "something lies there already", "Give another path, or remove it") from None
    return len(data)


def unpack(archive: Path, out: Path, identity: Path | None = None) -> int:
    """Write an archive's files into the new folder ``out``, once all of them are known to be those of a bundle. What age
    encrypted is decrypted in memory by the key in the file ``identity``. Returns the files' size in bytes; nothing is
    verified by this.

    Raises as :func:`pack`, and ``SpecError`` where something lies at ``out``.
    """
    with refusals_told(f"unpack {archive}"):
        tree = read_tree(archive) if identity is None else _decrypted(archive, identity)
    if out.exists() or out.is_symlink():
        raise SpecError(f"write {out}", "something lies there already", "Give another path, or remove it")
    with place_told(out), new_folder(out) as part:
        for name, data in tree.files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with disk_told(path):
                path.write_bytes(data)
    return tree.size_bytes


def _decrypted(archive: Path, identity: Path) -> Tree:
    data = age.decrypted(archive, identity)
    return Tree(read_archive(io.BytesIO(data), len(data)))


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
