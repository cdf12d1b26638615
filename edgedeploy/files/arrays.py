"""Arrays in ``.npz`` files: what they say of their size is looked at before anything is allocated."""

from __future__ import annotations

import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from edgedeploy.files.writing import write_atomic

MOST_DEFLATED: Final = 1032
"""Bytes that one byte of a deflated stream can stand for."""

MOST_ARRAYS: Final = 10_000
"""In one ``.npz``: a network has a handful of inputs and outputs."""

NUMBERS: Final = "biufc"
"""Kinds of numpy's types that are numbers."""

_LOCAL_HEADER: Final = 30
_NAME_LENGTHS: Final = 26
"""Bytes of a zip's header before a member's name, and before the lengths of name and extra field."""

_ENCRYPTED: Final = 1

_BROKEN_ZIP: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    NotImplementedError,  # a compression that zipfile does not know
    RuntimeError,  # an encrypted member
    OverflowError,
    SyntaxError,  # numpy evaluates headers
    tokenize.TokenError,
    KeyError,
    IndexError,
    TypeError,
)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """A compressed ``.npz`` of plain arrays, whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def read_arrays(path: Path, most_bytes: int | None = None) -> dict[str, Any]:
    """The arrays of an ``.npz`` by name.

    Every header is held against the size of its member, and their sum against ``most_bytes`` (half of this host's memory
    when left out), before anything is inflated or allocated. Raises ``ValueError`` for a file that is none, for one that
    says it is larger, and for arrays of other things than numbers.
    """
    import numpy as np

    arrays = {}
    with _archive(path) as archive:
        for name, (member, _, _) in _members(archive, most_bytes).items():
            with archive.open(member) as content:
                arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
    return arrays


def array_forms(
    path: Path, most_bytes: int | None = None, *, whole: bool = False
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of each array of an ``.npz``, from the headers; raises as :func:`read_arrays`. With ``whole`` the
    checksums of what follows them are looked at too, piece by piece."""
    with _archive(path) as archive:
        forms = {name: (shape, dtype) for name, (_, shape, dtype) in _members(archive, most_bytes).items()}
        if whole and (broken := archive.testzip()) is not None:
            raise ValueError(f"array {broken[:80]!r} is damaged")
        return forms


def stored_arrays(path: Path, most_bytes: int | None = None) -> dict[str, tuple[int, tuple[int, ...], Any]] | None:
    """Where the values of each array begin in the file, in C order, with shape and type; None where one is packed or
    turned. Raises as :func:`read_arrays`."""
    import numpy as np

    found: dict[str, tuple[int, tuple[int, ...], Any]] = {}
    with _archive(path) as archive, path.open("rb") as stream:
        for name, (member, shape, dtype) in _members(archive, most_bytes).items():
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
                return None
            stream.seek(member.header_offset + _NAME_LENGTHS)
            name_bytes, extra_bytes = struct.unpack("<HH", stream.read(4))
            stream.seek(member.header_offset + _LOCAL_HEADER + name_bytes + extra_bytes)
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            told_shape, turned, told_dtype = read(stream)
            if turned or (told_shape, told_dtype) != (shape, dtype):
                return None
            found[name] = stream.tell(), shape, dtype
        size_bytes = stream.seek(0, os.SEEK_END)
    if any(offset + math.prod(shape) * dtype.itemsize > size_bytes for offset, shape, dtype in found.values()):
        return None
    return found


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                yield archive
        except (OSError, *_BROKEN_ZIP) as exc:  # places outside of the file are an OSError of seek
            raise ValueError(f"it is no whole .npz file ({type(exc).__name__}: {exc})") from exc


def _members(
    archive: zipfile.ZipFile, most_bytes: int | None
) -> dict[str, tuple[zipfile.ZipInfo, tuple[int, ...], Any]]:
    """The archive's arrays by name, with shape and type, none of which says that it is larger than it can be."""
    limit_bytes = host_memory_bytes() // 2 if most_bytes is None else most_bytes
    members = archive.infolist()
    if len(members) > MOST_ARRAYS:
        raise ValueError(f"it holds {len(members)} arrays, at most {MOST_ARRAYS} are read")
    total_bytes = sum(member.file_size for member in members)
    if total_bytes > limit_bytes:
        raise ValueError(f"its arrays have {total_bytes} bytes, at most {limit_bytes} are read")
    found: dict[str, tuple[zipfile.ZipInfo, tuple[int, ...], Any]] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise ValueError(f"it holds two arrays named {name[:80]!r}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"array {name[:80]!r} is packed in a way that numpy does not pack")
        there_bytes = member.compress_size * (MOST_DEFLATED if member.compress_type == zipfile.ZIP_DEFLATED else 1)
        if member.file_size > max(there_bytes, MOST_DEFLATED):
            raise ValueError(f"array {name[:80]!r} says {member.file_size} bytes, and {there_bytes} are there")
        with archive.open(member) as content:
            found[name] = member, *_header(name, content, member.file_size)
    return found


def _header(name: str, content: IO[bytes], size_bytes: int) -> tuple[tuple[int, ...], Any]:
    """Shape and type. Raises ``ValueError`` unless the header of an ``.npy`` of ``size_bytes`` says just what follows it."""
    import numpy as np

    version = np.lib.format.read_magic(content)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"array {name[:80]!r} is of a version that numpy does not write")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(content)
    if dtype.kind not in NUMBERS or dtype.hasobject:
        raise ValueError(f"array {name[:80]!r} holds {dtype.name}, no numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"array {name[:80]!r} has the shape {shape}")
    asked_bytes, there_bytes = math.prod(shape) * dtype.itemsize, size_bytes - content.tell()
    if asked_bytes != there_bytes:
        raise ValueError(f"array {name[:80]!r} of shape {shape} has {asked_bytes} bytes, and {there_bytes} are there")
    return shape, dtype


def host_memory_bytes() -> int:
    """This host's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
