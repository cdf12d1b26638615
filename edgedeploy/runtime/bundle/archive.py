"""A bundle as one file: an uncompressed ustar archive or a stored zip, read strictly, into memory.

Nothing is extracted while it is read: a path that leads elsewhere, a link, a second file of one name or a size that is not
there is met before anything could be written. Archives that inflate are none of a bundle's, so that none can be a bomb.
Sources: POSIX.1-1988 for ustar, PKWARE's APPNOTE 6.3 for zip.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from edgedeploy.runtime.bundle.names import MOST_BUNDLE_BYTES, MOST_FILE_BYTES, MOST_FILES, check_name, check_names
from edgedeploy.runtime.faults import BundleError

_BLOCK = 512
_MOST_PADDING = 1 << 20
_USTAR = b"ustar\x0000"
_REMEDY = "Make the archive with `edgedeploy pack`"

_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"x": "an extended (pax) header",
    b"g": "an extended (pax) header",
    b"L": "a long name of GNU's format",
    b"K": "a long link of GNU's format",
    b"S": "a sparse file",
}

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_UTF8 = 0x800
_FILE_TYPE = 0o170000
_PLAIN = (0, 0o100000)

_AGE = b"age-encryption.org"
_LINK = b"EDLINK\0"
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def read_archive(stream: BinaryIO, size_bytes: int) -> dict[str, bytes]:
    """The files by name, of an archive of ``size_bytes`` that ``stream`` is at the beginning of.

    Raises :class:`BundleError` ``malformed`` for everything but a plain ustar or stored zip archive of plain files with
    names that a bundle may have.
    """
    if size_bytes > MOST_BUNDLE_BYTES:
        raise _refused(f"it has {size_bytes} bytes, at most {MOST_BUNDLE_BYTES} are read")
    source = _Source(stream, size_bytes)
    head = source.peek()
    if head.startswith(_AGE):
        remedy = "Decrypt it with the key of whoever may read it: edgedeploy unpack ARCHIVE FOLDER --identity KEY"
        raise BundleError("malformed", "the archive is encrypted with age", remedy)
    if head.startswith(_LINK):
        remedy = "Unpack it first: edgedeploy unpack LINK FOLDER --trust KEY"
        raise BundleError("malformed", "it is packed for a slow link (.edlink)", remedy)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise _refused(f"it is packed by {name}")
    members = _zip(source) if head.startswith(b"PK") else _tar(source)
    files = dict(members)
    check_names(files)
    return files


class _Source:
    """Reads forwards, never beyond the size that the file has."""

    def __init__(self, stream: BinaryIO, size_bytes: int) -> None:
        self._stream = stream
        self._head = stream.read(_BLOCK)
        self.left = size_bytes
        self.at = 0

    def peek(self) -> bytes:
        return self._head

    def read(self, size_bytes: int, what: str) -> bytes:
        if size_bytes > self.left:
            raise _refused(f"{what} is said to have {size_bytes} bytes, and {self.left} are left")
        data, self._head = self._head[:size_bytes], self._head[size_bytes:]
        data += self._stream.read(size_bytes - len(data))
        if len(data) != size_bytes:
            raise BundleError("unreadable", "the archive became shorter while it was read")
        self.left -= size_bytes
        self.at += size_bytes
        return data


class _Seen:
    """Names in the order in which they come: each is looked at before its bytes are read."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, raw: bytes, size_bytes: int) -> str:
        name = raw.decode("latin-1")  # whatever is no ASCII is refused by its rules
        check_name(name)
        if name.lower() in self._names:
            raise _refused(f"{name!r} is there twice, or differs from another in upper and lower case only")
        if len(self._names) == MOST_FILES:
            raise _refused(f"it has more than {MOST_FILES} files")
        if size_bytes > MOST_FILE_BYTES:
            raise _refused(f"{name!r} has {size_bytes} bytes, at most {MOST_FILE_BYTES} are read")
        self._names.add(name.lower())
        return name


# -- ustar


def _tar(source: _Source) -> Iterator[tuple[str, bytes]]:
    seen = _Seen()
    folders: set[str] = set()
    used: set[str] = set()
    while True:
        header = source.read(_BLOCK, "a header")
        if not any(header):
            break
        size_bytes = _checked(header)
        raw = _text(header[:100])
        prefix = _text(header[345:500])
        path = prefix + b"/" + raw if prefix else raw
        kind = header[156:157]
        if kind == b"5" and size_bytes == 0:
            folders.add(_folder(path))
            if len(folders) > MOST_FILES:
                raise _refused(f"it has more than {MOST_FILES} folders")
            continue
        if kind not in (b"0", b"\0"):
            raise _refused(f"{path[:200]!r} is {_KINDS.get(kind, 'of an unknown kind')}")
        name = seen.add(path, size_bytes)
        yield name, source.read(size_bytes, repr(name))
        used.update(name[:at] for at, letter in enumerate(name) if letter == "/")
        if any(source.read(-size_bytes % _BLOCK, "padding")):
            raise _refused(f"something stands behind {name!r}")
    if source.left > _MOST_PADDING or any(source.read(source.left, "the end")):
        raise _refused("something stands behind its end")
    if folders - used:
        raise _refused(f"folder {sorted(folders - used)[0]!r} is empty: no signature covers it")


def _checked(header: bytes) -> int:
    """The member's size. The checksum is taken with its own field as blanks."""
    if header[257:265] != _USTAR:
        raise _refused("it is no ustar archive and no zip")
    if _octal(header[148:156]) != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
        raise _refused("a header is damaged")
    if header[156:157] in (b"0", b"\0", b"5") and any(header[157:257]):
        raise _refused("a plain file has the name of a link's target")
    return _octal(header[124:136])


def _octal(field: bytes) -> int:
    digits = field.rstrip(b"\0 ")
    if not digits or digits.strip(b"01234567"):
        raise _refused("a number of a header is not octal")
    return int(digits, 8)


def _text(field: bytes) -> bytes:
    text, _, rest = field.partition(b"\0")
    if any(rest):
        raise _refused("a name goes on behind its end")
    return text


def _folder(path: bytes) -> str:
    name = path.decode("latin-1")
    if name.endswith("/"):
        name = name[:-1]
    check_name(name)
    return name


# -- zip


def _zip(source: _Source) -> Iterator[tuple[str, bytes]]:
    """Members one behind the other from the first byte on, then the directory that says the same once more, then the end."""
    seen = _Seen()
    said: list[tuple[bytes, int, int, int, int]] = []
    while True:
        magic = source.read(4, "a header")
        if magic != b"PK\x03\x04":
            break
        start = source.at - 4
        fields = _LOCAL.unpack(magic + source.read(_LOCAL.size - 4, "a header"))
        _, _, flags, method, _, _, crc, packed, size_bytes, name_bytes, extra_bytes = fields
        raw = source.read(name_bytes, "a name")
        source.read(extra_bytes, "an extra field")
        if method != 0 or packed != size_bytes:
            raise _refused(f"{raw[:200]!r} is compressed")
        if flags & ~_UTF8:
            raise _refused(f"{raw[:200]!r} is encrypted, or of unknown size")
        name = seen.add(raw, size_bytes)
        data = source.read(size_bytes, repr(name))
        if zlib.crc32(data) != crc:
            raise _refused(f"{name!r} is damaged")
        said.append((raw, flags, crc, size_bytes, start))
        yield name, data
    _zip_directory(source, magic, said)


def _zip_directory(source: _Source, magic: bytes, said: list[tuple[bytes, int, int, int, int]]) -> None:
    begin = source.at - 4
    for expected in said:
        if magic != b"PK\x01\x02":
            raise _refused("its directory does not name every file")
        fields = _CENTRAL.unpack(magic + source.read(_CENTRAL.size - 4, "its directory"))
        flags, method, crc, packed, size_bytes = fields[3], fields[4], fields[7], fields[8], fields[9]
        name_bytes, extra_bytes, comment_bytes, disk, attributes, start = (*fields[10:14], *fields[15:17])
        raw = source.read(name_bytes, "a name")
        source.read(extra_bytes + comment_bytes, "an extra field")
        if (raw, flags, crc, size_bytes, start) != expected or (method, packed, disk) != (0, size_bytes, 0):
            raise _refused(f"its directory says otherwise of {expected[0][:200]!r}")
        if (attributes >> 16) & _FILE_TYPE not in _PLAIN:
            raise _refused(f"{raw[:200]!r} is a link or a device")
        magic = source.read(4, "its directory")
    size = source.at - 4 - begin
    end = _END.unpack(magic + source.read(_END.size - 4, "its end"))
    count = len(said)
    if end != (b"PK\x05\x06", 0, 0, count, count, size, begin, 0) or source.left:
        raise _refused("its end says otherwise than its directory")


def _refused(found: str) -> BundleError:
    return BundleError("malformed", f"the archive: {found}", _REMEDY)
