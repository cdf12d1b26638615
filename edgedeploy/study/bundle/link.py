"""A bundle for a slow link: its packed weights once, every other file by what those weights do not say of it.

    "EDLINK" 0x00 version(1)  SHA-256 of everything behind it(32)  lengths of header and update (2 x u32)
    header: JSON, deflated    the bundle's identity, that of the bundle that is there already, files and their pieces
    update                    what makes the packed weights out of those of the bundle that is there
    literals: xz              whatever is nowhere else

A file is its pieces one behind the other: literal bytes, an array of the decoded weights in some form
(:mod:`edgedeploy.compress.codec.layouts`), or bytes of the bundle that is there already. What comes out has the bundle's
identity, a hash over all of its files, or nothing comes out. Whose bundle it is says its signature, one of the files.

Unpacking needs numpy beside the standard library, and `zstandard` for weights that were packed by it. No torch.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgedeploy.compress.codec.coded import Numbers
from edgedeploy.compress.codec.container import from_bytes, inflated
from edgedeploy.compress.codec.layouts import Span, form_of, formed, patched, spans, told_of
from edgedeploy.compress.codec.rebased import rebased, rebased_bytes
from edgedeploy.errors import DataError
from edgedeploy.files.parsing import parsed
from edgedeploy.runtime.bundle.names import MANIFEST, MOST_BUNDLE_BYTES, MOST_FILE_BYTES, MOST_FILES, SIGNATURE
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.faults import BundleError as Refused

SUFFIX: Final = ".edlink"
MAGIC: Final = b"EDLINK\0"
VERSION: Final = 1
_HEAD: Final = struct.Struct("<7sB32s2I")

WEIGHTS: Final = "model/weights.edpack"
"""The packed weights in a bundle of a variant with `storage`."""

MOST_HEADER_BYTES: Final = 64 << 20
MOST_PIECES: Final = 200_000
MOST_UNPACKER_BYTES: Final = 96 << 20
"""Of memory for the unpacker of xz itself, beside what it makes."""

_XZ: Final = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 32 << 20}]
_CORRECTION: Final = 5
"""Bytes of a number's place and value."""


@dataclass(frozen=True)
class Link:
    """What was packed: ``bundle_bytes`` are those of the bundle's files, ``of_weights`` how many of them the decoded weights
    say, ``of_base`` how many are those of the bundle ``base`` (its identity; empty for none)."""

    data: bytes
    identity: str
    bundle_bytes: int
    of_weights: int
    of_base: int
    base: str = ""


def link_of(tree: Tree, base: Tree | None = None) -> Link:
    """Pack a bundle, after the bundle ``base`` if that is given. Raises ``DataError`` for damaged packed weights."""
    maker = _Maker(tree, base)
    files = [maker.file(name) for name in sorted(tree.files, key=lambda name: (name != WEIGHTS, name))]
    told = {"bundle": tree.identity, "base": base.identity if base else "", "files": files}
    header = zlib.compress(json.dumps(told, separators=(",", ":")).encode(), 9)
    literals = lzma.compress(b"".join(maker.literals), lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=_XZ)
    rest = header + maker.update + literals
    head = _HEAD.pack(MAGIC, VERSION, hashlib.sha256(rest).digest(), len(header), len(maker.update))
    return Link(
        head + rest, tree.identity, tree.size_bytes, maker.of_weights, maker.of_base, base.identity if base else ""
    )


def is_link(data: bytes) -> bool:
    return data[: len(MAGIC)] == MAGIC


def tree_of(data: bytes, base: Tree | None = None) -> Tree:
    """The bundle's files, in memory. ``base`` is the bundle that an update is for.

    Raises ``DataError`` for a link that is damaged, or is no link, and for a ``base`` that is missing or another one;
    ``TargetUnavailable`` where the weights need zstd and it is not installed. Whose bundle it is has to be verified.
    """
    told, update, literals = _parts(data)
    _require_base(told, base)
    try:
        tree = _made(told, update, literals, base)
    except Refused as exc:
        raise DataError("unpack a link", f"it holds no bundle: {exc.message}", "Fetch it anew") from exc
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, EOFError, lzma.LZMAError) as exc:
        raise DataError("unpack a link", f"it is damaged ({type(exc).__name__}: {exc})"[:200], "Fetch it anew") from exc
    except MemoryError:
        found = "what comes out is larger than the memory that is free here"
        raise DataError("unpack a link", found, "Unpack it on a machine with more") from None
    if tree.identity != told["bundle"]:
        found = f"bundle {tree.identity[:12]} comes out, and {str(told['bundle'])[:12]} went in"
        raise DataError("unpack a link", found, "Fetch it anew")
    return tree


# -- packing


class _Maker:
    """The pieces of one file after the other; literals are collected."""

    def __init__(self, tree: Tree, base: Tree | None) -> None:
        self._tree = tree
        self._base = base
        self.literals: list[bytes] = []
        self.update = b""
        self.of_weights = self.of_base = 0
        packed = tree.files.get(WEIGHTS)
        self._arrays: Mapping[str, Numbers] = from_bytes(packed, WEIGHTS)[1] if packed is not None else {}
        self._same = {base.digests[name]: name for name in sorted(base.files)} if base else {}

    def file(self, name: str) -> list[Any]:
        data, digest = self._tree.files[name], self._tree.digests[name]
        return [name, len(data), digest, self._pieces(name, data, digest)]

    def _pieces(self, name: str, data: bytes, digest: str) -> list[list[Any]]:
        if digest in self._same and data:
            self.of_base += len(data)
            return [["b", self._same[digest], 0, len(data)]]
        if name == WEIGHTS and self._base is not None and WEIGHTS in self._base.files:
            old = from_bytes(self._base.files[WEIGHTS], WEIGHTS)[1]
            update = rebased_bytes(old, data)
            if update is not None:
                self.update = update
                return [["u"]]
        if name in (MANIFEST, SIGNATURE, WEIGHTS) or name.startswith("golden/") or not self._arrays:
            return self._literal(data, 0, len(data))
        return self._by_spans(data, spans(data, self._arrays))

    def _by_spans(self, data: bytes, found: Sequence[Span]) -> list[list[Any]]:
        pieces, at = [], 0
        for span in found:
            pieces += self._literal(data, at, span.start)
            pieces.append(["w", span.name, told_of(span.form), len(span.places)])
            self.literals += [span.places.astype("<u4").tobytes(), span.values]
            self.of_weights += span.end - span.start
            at = span.end
        return pieces + self._literal(data, at, len(data))

    def _literal(self, data: bytes, start: int, end: int) -> list[list[Any]]:
        if start == end:
            return []
        self.literals.append(data[start:end])
        return [["l", end - start]]


# -- unpacking


def _parts(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Header, update, literals. Raises ``DataError``."""
    if not is_link(data) or len(data) < _HEAD.size:
        raise DataError("unpack a link", "it is none", "Name a file that `edgedeploy pack` made")
    _, version, digest, first, second = _HEAD.unpack_from(data)
    if version != VERSION:
        raise DataError("unpack a link", f"version {version}, and {VERSION} is read", "Use the release that packed it")
    rest = memoryview(data)[_HEAD.size :]
    if hashlib.sha256(rest).digest() != digest or first + second > len(rest):
        raise DataError("unpack a link", "it is not what was packed: cut off, or changed on its way", "Fetch it anew")
    try:
        told = parsed(inflated(bytes(rest[:first]), MOST_HEADER_BYTES))
        if not {"bundle", "base", "files"} <= {*told}:
            raise ValueError("a key is missing")
    except (ValueError, RecursionError, zlib.error) as exc:
        raise DataError("unpack a link", f"its header is damaged ({exc})"[:200], "Fetch it anew") from exc
    return told, bytes(rest[first : first + second]), bytes(rest[first + second :])


def _require_base(told: Mapping[str, Any], base: Tree | None) -> None:
    """Before anything is applied."""
    wanted = str(told["base"])
    if not wanted:
        return
    if base is None:
        found = f"it is an update of bundle {wanted[:12]}, and no bundle was given"
        raise DataError("unpack an update", found, "Give that bundle with --from, or fetch the whole release")
    if base.identity != wanted:
        found = f"it is for bundle {wanted[:12]}, and {base.identity[:12]} was given"
        raise DataError(
            "unpack an update", found, "Give the bundle that it is for with --from, or fetch the whole release"
        )


def _made(told: Mapping[str, Any], update: bytes, literals: bytes, base: Tree | None) -> Tree:
    files = told["files"]
    sizes = [file[1] for file in files]
    pieces = [piece for file in files for piece in file[3]]
    if len(files) > MOST_FILES or len(pieces) > MOST_PIECES:
        raise ValueError(f"{len(files)} files in {len(pieces)} pieces")
    if (
        any(type(size) is not int or not 0 <= size <= MOST_FILE_BYTES for size in sizes)
        or sum(sizes) > MOST_BUNDLE_BYTES
    ):
        raise ValueError("more bytes than a bundle may have")
    if (count := sum(map(_literal_bytes, pieces))) > 2 * sum(sizes):
        raise ValueError(f"{count} literal bytes for files of {sum(sizes)}")
    source = _Literals(literals, count)
    made: dict[str, bytes] = {}
    arrays: Mapping[str, Numbers] = {}
    for name, size, sha256, parts in files:
        if name in made:
            raise ValueError(f"two files {name[:80]!r}")
        data = bytearray()
        for part in _bytes_of(parts, size, source, arrays, base, update, sha256):
            data += part
            if len(data) > size:
                raise ValueError(f"file {name[:80]!r} is longer than it should be")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"file {name[:80]!r} is not what went in")
        made[name] = bytes(data)
        if name == WEIGHTS:
            arrays = from_bytes(made[name], WEIGHTS)[1]
    source.end()
    return Tree(made)


def _literal_bytes(piece: Sequence[Any]) -> int:
    count = piece[1] if piece[0] == "l" else _CORRECTION * piece[3] if piece[0] == "w" else 0
    if type(count) is not int or not 0 <= count <= MOST_BUNDLE_BYTES:
        raise ValueError("a piece of no size")
    return count


def _bytes_of(
    pieces: Sequence[Any],
    size: int,
    source: _Literals,
    arrays: Mapping[str, Numbers],
    base: Tree | None,
    update: bytes,
    sha256: str,
) -> Iterator[bytes]:
    for kind, *told in pieces:
        if kind == "l":
            yield source.take(told[0])
        elif kind == "w":
            yield _of_weights(told, size, source, arrays)
        elif kind == "b":
            name, start, count = told
            if base is None or type(start) is not int or type(count) is not int or not 0 <= start <= start + count:
                raise ValueError("a piece of another bundle")
            yield base.files[name][start : start + count]
        elif kind == "u":
            if base is None:
                raise ValueError("an update without a base")
            yield rebased(from_bytes(base.files[WEIGHTS], WEIGHTS)[1], update, sha256)
        else:
            raise ValueError(f"a piece of kind {str(kind)[:20]!r}")


def _of_weights(told: Sequence[Any], size: int, source: _Literals, arrays: Mapping[str, Numbers]) -> bytes:
    name, form, wrong = told[0], form_of(told[1]), told[2]
    array = arrays[name]
    if array.nbytes > 4 * size or not form.fits(array):  # int8 is a quarter
        raise ValueError("weights that the file has no room for")
    data = formed(array, form)
    places = np.frombuffer(source.take(4 * wrong), "<u4").astype(np.int64)
    values = source.take(wrong)
    if len(places) and int(places.max()) >= len(data):
        raise ValueError("a byte outside of its piece")
    return patched(data, Span(0, len(data), name, form, places, values))


class _Literals:
    """Bytes that are taken one after the other: never more than were told are made."""

    def __init__(self, packed: bytes, count: int) -> None:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_UNPACKER_BYTES)
        self._data = memoryview(unpacker.decompress(packed, count + 1))
        if len(self._data) != count or not unpacker.eof or unpacker.unused_data:
            raise ValueError("its literal bytes are more or fewer than it says")
        self._at = 0

    def take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise ValueError("a piece ends too early")
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("bytes that no file has")
