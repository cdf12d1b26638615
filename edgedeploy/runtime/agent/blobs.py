"""Uploads: content-addressed, checked before they are used, whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import PART_PREFIX, Root, sha256_file


def verify(root: Root, wanted: Mapping[str, int]) -> dict[str, Any]:
    """Which of ``wanted`` (hash -> size in bytes) have to be uploaded, and the bytes free for them.

    Blobs that are here are hashed again: a damaged one is removed and counts as missing. When the missing ones do not
    fit, blobs that nobody asked for now are removed, the longest unused first.
    """
    root.blobs.mkdir(parents=True, exist_ok=True)
    missing = [sha256 for sha256 in wanted if not _is_whole(root.blob(sha256), sha256)]
    needed_bytes = sum(wanted[sha256] for sha256 in missing)
    _make_room(root, needed_bytes, keep=wanted)
    return {"missing": missing, "needed_bytes": needed_bytes, "free_bytes": free_bytes(root)}


def free_bytes(root: Root) -> int:
    return shutil.disk_usage(root.folder).free


def _is_whole(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    if sha256_file(path) != sha256:
        path.unlink()
        return False
    os.utime(path)
    return True


def _make_room(root: Root, needed_bytes: int, keep: Mapping[str, int]) -> None:
    candidates = [path for path in root.blobs.iterdir() if path.is_file() and path.name not in keep]
    for path in sorted(candidates, key=lambda path: path.stat().st_mtime_ns):
        if free_bytes(root) >= needed_bytes:
            return
        path.unlink()


def commit(root: Root, parts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Turn uploaded ``(part file, expected hash)`` pairs into blobs. A part with another hash is removed.

    Raises :class:`RuntimeFault` ``corrupt_blob`` after all parts were looked at.
    """
    corrupt = []
    for name, sha256 in parts:
        if not name.startswith(PART_PREFIX) or "/" in name:
            raise RuntimeFault("bad_job", f"{name!r} is no part file")
        part, blob = root.blobs / name, root.blob(sha256)
        found = sha256_file(part)
        if found != sha256:
            part.unlink()
            corrupt.append(f"{name} hashes to {found}, {sha256} was sent")
            continue
        _sync(part)
        part.replace(blob)
    _sync(root.blobs)
    if corrupt:
        raise RuntimeFault("corrupt_blob", "; ".join(corrupt))
    return {"committed": len(parts)}


def discard_parts(root: Root) -> None:
    """Remove what interrupted uploads left; only the holder of the lease may.

    The server of a lost connection may hold a part open for minutes, so it is emptied as well: the disk has its room back
    at once. It is emptied under another name, which no :func:`commit` that is still under way takes for what it hashed.
    """
    if not root.blobs.is_dir():
        return
    for path in list(root.blobs.glob(f"{PART_PREFIX}*")):
        gone = path.with_name(f"{PART_PREFIX}gone")
        try:
            path.replace(gone)
        except FileNotFoundError:
            continue  # it became a blob
        os.truncate(gone, 0)
        gone.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
