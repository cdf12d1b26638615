"""The file `.edpack`: weights as they are shipped, with a proof of what comes out of them.

    "EDPACK" 0x00 version(1)  SHA-256 of the decoded weights(32)  lengths of the four parts (4 x u32)
    header: JSON, deflated    names, shapes and kinds, in the order of everything that follows
    plain:  deflated          steps and whatever is not coded, little-endian
    tables: deflated          frequencies of each coded array
    stream                    codes of all coded arrays: rANS, or zstd of their bytes

Every length and every count is bounded before anything of that size is made, and nothing is returned unless the decoded
weights have the hash.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard

import numpy as np

from edgedeploy.compress.codec.coded import (
    SMALL,
    Coded,
    Codes,
    Constant,
    Kept,
    Numbers,
    Stepped,
    Wound,
    digest_of_weights,
)
from edgedeploy.compress.codec.rans import MOST_CONTEXTS, MOST_SYMBOLS, Table, decode, encode, lanes_for, table_of
from edgedeploy.errors import DataError
from edgedeploy.files.parsing import parsed_value, read_plain
from edgedeploy.files.writing import write_atomic

MAGIC: Final = b"EDPACK\0"
VERSION: Final = 1
_HEAD: Final = struct.Struct("<7sB32s4I")

MOST_PACKED_BYTES: Final = 1 << 30
MOST_ARRAYS: Final = 20_000
MOST_NUMBERS: Final = 1 << 27
"""Of all arrays together: 512 MiB of float32."""

MOST_PART_BYTES: Final = 1 << 31
CONTEXTS: Final = 4

Coder = Literal["rans", "zstd"]
CODED: Final = ("s", "q", "w")
"""Kinds of arrays in the header whose numbers are in the stream."""

FLOATS: Final = ("float16", "float32", "float64")
TYPES: Final = (*FLOATS, "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class Packed:
    """Arrays by name as they are shipped, and how their codes are coded."""

    arrays: Mapping[str, Coded]
    coder: Coder = "rans"

    def decoded(self) -> dict[str, Numbers]:
        return {name: coded.decoded() for name, coded in self.arrays.items()}


def to_bytes(packed: Packed) -> bytes:
    """The file's content; the same arrays give the same bytes."""
    header, plain, coded = [], bytearray(), []
    for name, one in sorted(packed.arrays.items()):
        fields, stored = _taken_apart(one)
        header.append([name, list(one.shape), *fields])
        plain += stored
        if _is_coded(one):
            coded.append(one.codes)
    tables, stream, lanes = coded_stream(coded, packed.coder)
    text = json.dumps({"coder": packed.coder, "lanes": lanes, "arrays": header}, separators=(",", ":")).encode()
    parts = [zlib.compress(text, 9), zlib.compress(bytes(plain), 9), zlib.compress(tables, 9), stream]
    digest = bytes.fromhex(digest_of_weights(packed.decoded()))
    return _HEAD.pack(MAGIC, VERSION, digest, *map(len, parts)) + b"".join(parts)


def write_packed(path: Path, packed: Packed) -> int:
    """Write the file, whole or not at all; its size in bytes."""
    data = to_bytes(packed)
    write_atomic(path, data)
    return len(data)


def read_packed(path: Path) -> tuple[Packed, dict[str, Numbers]]:
    """What :func:`from_bytes` gives of a file. Raises ``DataError``."""
    try:
        data = read_plain(path, MOST_PACKED_BYTES)
    except (OSError, ValueError) as exc:
        raise DataError(f"packed weights {path}", str(exc), "Name a file that `edgedeploy` packed") from exc
    return from_bytes(data, str(path))


def from_bytes(data: bytes, name: str = "packed weights") -> tuple[Packed, dict[str, Numbers]]:
    """The arrays as they are shipped, and decoded. Raises ``DataError`` for anything but a whole file of
    :func:`to_bytes`, ``TargetUnavailable`` where zstd is needed and not there."""
    try:
        packed, digest = _parsed(data)
        arrays = packed.decoded()
    except DataError as exc:
        raise DataError(f"read {name}", f"{exc.asked}: {exc.found}", "Fetch the file anew") from exc
    except (
        *(ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, MemoryError),
        *(struct.error, zlib.error),
    ) as exc:
        raise DataError(
            f"read {name}", f"it is damaged ({type(exc).__name__}: {exc})"[:300], "Fetch the file anew"
        ) from exc
    if digest_of_weights(arrays) != digest:
        raise DataError(f"read {name}", "the weights that come out are not those that went in", "Fetch the file anew")
    return packed, arrays


def digest_in(data: bytes) -> str:
    """The hash of the decoded weights that a file states. Raises ``DataError`` where it is none of ours."""
    return _lengths(data)[0]


def _lengths(data: bytes, *, whole: bool = True) -> tuple[str, tuple[int, ...]]:
    if len(data) < _HEAD.size or data[: len(MAGIC)] != MAGIC:
        raise DataError("packed weights", "it is no .edpack file", "Name a file that `edgedeploy` packed")
    _, version, digest, *lengths = _HEAD.unpack_from(data)
    if version != VERSION:
        raise DataError("packed weights", f"version {version}, and {VERSION} is read", "Use the release that packed it")
    told = sum(lengths if whole else lengths[:3])
    if _HEAD.size + told != len(data):
        found = f"{len(data)} bytes, and its parts have {_HEAD.size + told}"
        raise DataError("packed weights", found, "Fetch the file anew")
    return digest.hex(), tuple(lengths)


@dataclass(frozen=True)
class Skeleton:
    """A file without its codes: ``arrays`` in the order of the file, where ``counts`` has how many codes each of those
    takes that have some, by name. ``tables`` is the part of that name, inflated; ``stream`` what stands behind the others.
    """

    digest: str
    arrays: Mapping[str, Coded]
    counts: Mapping[str, int]
    coder: str
    lanes: int
    tables: bytes
    stream: bytes

    def with_codes(self, codes: Iterator[Codes]) -> Packed:
        """Raises ``ValueError`` for codes that stand for nothing."""
        found = {
            name: _with(one, next(codes)) if name in self.counts and isinstance(one, (Stepped, Wound)) else one
            for name, one in self.arrays.items()
        }
        return Packed(found, "zstd" if self.coder == "zstd" else "rans")


def skeleton_of(data: bytes, *, whole: bool = True) -> Skeleton:
    """What a file says of its arrays. With ``whole`` false the stream may be missing. Raises ``DataError`` and what a parse
    of anything may raise: see :func:`from_bytes`."""
    digest, lengths = _lengths(data, whole=whole)
    ends = np.cumsum([_HEAD.size, *lengths]).tolist()
    header, plain, tables, stream = (data[a:b] for a, b in itertools.pairwise(ends))
    told = parsed_value(inflated(header, 64 << 20))
    rows = told["arrays"]
    if len(rows) > MOST_ARRAYS or len({row[0] for row in rows}) != len(rows):
        raise ValueError(f"{len(rows)} arrays, or two of one name")
    shapes = [_shape(row[1]) for row in rows]
    if (numbers := sum(map(math.prod, shapes))) > MOST_NUMBERS:
        raise ValueError(f"{numbers} numbers, and {MOST_NUMBERS} at most are read")
    if any(not isinstance(row[0], str) for row in rows):
        raise TypeError("a name that is no text")
    source = Bytes(inflated(plain, 8 * numbers + 64 * len(rows) + 1024))
    arrays = {row[0]: _put_together(shape, row[2:], source) for row, shape in zip(rows, shapes, strict=True)}
    source.end()
    counts = {row[0]: _codes_of(row[2], shape) for row, shape in zip(rows, shapes, strict=True) if row[2] in CODED}
    inner = inflated(tables, MOST_SYMBOLS * MOST_CONTEXTS * 4 * (len(rows) + 1))
    return Skeleton(digest, arrays, counts, str(told["coder"]), int(told["lanes"]), inner, stream)


def without_stream(data: bytes) -> bytes:
    """All of a file before its stream."""
    return data[: len(data) - _lengths(data)[1][3]]


def _parsed(data: bytes) -> tuple[Packed, str]:
    found = skeleton_of(data)
    codes = decoded_codes(list(found.counts.values()), found.tables, found.stream, found.coder, found.lanes)
    return found.with_codes(iter(codes)), found.digest


def _is_plain(one: Coded) -> TypeGuard[Stepped]:
    """Whether codes are not worth a table of their own."""
    if not isinstance(one, Stepped) or one.quarters is not None or len(one.steps) != 1 or len(one.codes) >= SMALL:
        return False
    return not len(one.codes) or int(np.abs(one.codes).max()) <= 127


def _is_coded(one: Coded) -> TypeGuard[Stepped | Wound]:
    return isinstance(one, (Stepped, Wound)) and not _is_plain(one)


def _with(one: Stepped | Wound, codes: Codes) -> Coded:
    if (
        isinstance(one, Wound)
        and len(codes)
        and not 0 <= int(codes.min()) <= int(codes.max()) < one.nodes * len(one.factors)
    ):
        raise ValueError("a code beyond the trajectory")
    return replace(one, codes=codes)


_NO_CODES: Final = np.zeros(0, np.int64)
"""Until they are decoded."""


def _codes_of(kind: str, shape: tuple[int, ...]) -> int:
    count = math.prod(shape)
    return -(-count // 2) if kind == "w" else count


def _shape(given: Any) -> tuple[int, ...]:
    shape = tuple(given)
    if len(shape) > 16 or any(not isinstance(side, int) or isinstance(side, bool) or side < 0 for side in shape):
        raise ValueError(f"a shape of {given!r}"[:80])
    return shape


def _taken_apart(one: Coded) -> tuple[list[Any], bytes]:
    """What the header says of an array, and what goes to the plain part."""
    if isinstance(one, Constant):
        return ["c", one.dtype], struct.pack("<q" if "int" in one.dtype else "<d", one.value)
    if isinstance(one, Kept):
        return ["k", one.dtype, one.stored.dtype.name], _little(one.stored)
    if isinstance(one, Stepped):
        if _is_plain(one):
            return ["b", 1], _little(one.steps) + one.codes.astype(np.int8).tobytes()
        if one.quarters is None:
            return ["s", len(one.steps)], _little(one.steps)
        return ["q", 1], _little(one.steps) + b"".join(part.tobytes() for part in one.quarters)
    numbers = np.array([one.side, *one.centre, *one.factors], "<f8")
    return ["w", one.nodes, len(one.factors)], numbers.tobytes()


def _put_together(shape: tuple[int, ...], fields: list[Any], source: Bytes) -> Coded:
    """An array without its codes, of which there are as many as zeros stand there."""
    kind, count = fields[0], math.prod(shape)
    if kind == "c":
        dtype = _type(fields[1], TYPES)
        (value,) = struct.unpack("<q" if "int" in dtype else "<d", source.take(8))
        return Constant(shape, dtype, value)
    if kind == "k":
        dtype, stored = _type(fields[1], TYPES), _type(fields[2], TYPES)
        return Kept(shape, dtype, source.array(stored, count))
    if kind == "b":
        if count >= SMALL:
            raise ValueError(f"{count} numbers that are not coded")
        return Stepped(shape, source.array("float32", 1), source.array("int8", count).astype(np.int64))
    if kind in ("s", "q"):
        rows = int(fields[1])
        if rows < 1 or (rows != 1 and (not shape or rows != shape[0])) or (kind == "q" and len(shape) < 2):
            raise ValueError(f"{rows} steps for an array of shape {shape}")
        steps, codes = source.array("float32", rows), _NO_CODES
        if kind == "s":
            return Stepped(shape, steps, codes)
        return Stepped(shape, steps, codes, (source.array("int8", shape[0]), source.array("int8", shape[1])))
    if kind != "w":
        raise ValueError(f"an array of kind {kind!r}"[:80])
    nodes, classes = int(fields[1]), int(fields[2])
    if not 1 <= nodes * classes <= MOST_SYMBOLS or classes < 1:
        raise ValueError(f"{nodes} nodes in {classes} classes")
    side, first, second, *factors = source.array("float64", 3 + classes).tolist()
    return Wound(shape, side, (first, second), tuple(factors), nodes, _NO_CODES)


def coded_stream(coded: list[Codes], coder: Coder) -> tuple[bytes, bytes, int]:
    """Tables, stream and lanes: what :func:`decoded_codes` reads."""
    if coder == "zstd":
        from edgedeploy.compress.codec.zstd import zstd_packed

        return b"", zstd_packed(b"".join(map(_narrow, coded))), 1
    lanes = lanes_for(sum(map(len, coded)))
    pairs = [(codes, _cheapest(codes, lanes)) for codes in coded if len(codes)]
    return b"".join(_table_bytes(table) for _, table in pairs), encode(pairs, lanes), lanes


def _cheapest(codes: Codes, lanes: int) -> Table:
    """With contexts where they save more than their tables take."""
    tables = [table_of(codes, contexts, lanes) for contexts in (1, CONTEXTS)]
    costs = [len(encode([(codes, table)], lanes)) + 0.7 * len(_table_bytes(table)) for table in tables]
    return tables[int(np.argmin(costs))]


def _narrow(codes: Codes) -> bytes:
    """One byte a code where all fit, else two; the first byte says which."""
    if len(codes) and np.abs(codes).max() > 32767:
        raise DataError("pack weights", f"codes up to {np.abs(codes).max()}", "Choose larger steps")
    wide = len(codes) and np.abs(codes).max() > 127
    return bytes([2 if wide else 1]) + codes.astype("<i2" if wide else "i1").tobytes()


def decoded_codes(counts: list[int], tables: bytes, stream: bytes, coder: str, lanes: int) -> list[Codes]:
    """The codes of arrays with so many each. Raises ``ValueError`` or ``DataError`` for what does not hold them."""
    if coder == "zstd":
        from edgedeploy.compress.codec.zstd import zstd_unpacked

        source = Bytes(zstd_unpacked(stream, 2 * sum(counts) + len(counts)))
        found = [_widened(source, count) for count in counts]
        source.end()
        return found
    if coder != "rans":
        raise ValueError("an unknown coder")
    if lanes < lanes_for(sum(counts)):  # of one lane, a file of a hundred bytes would take minutes
        raise ValueError(f"{lanes} lanes for {sum(counts)} numbers")
    coded = iter(decode(stream, tables_of(counts, tables), lanes))
    return [next(coded) if count else np.zeros(0, np.int64) for count in counts]


def _widened(source: Bytes, count: int) -> Codes:
    wide = source.take(1) == b"\x02"
    return source.array("int16" if wide else "int8", count).astype(np.int64)


def tables_of(counts: list[int], tables: bytes) -> list[tuple[int, Table]]:
    """Of the arrays that have codes, how many and by what table."""
    source = Bytes(tables)
    found = [(count, _table(source)) for count in counts if count]
    source.end()
    return found


def _table_bytes(table: Table) -> bytes:
    """Frequencies below 128 take a byte, others two."""
    contexts, symbols = table.frequencies.shape
    head = struct.pack("<iHB", table.low, symbols, contexts) + np.array(table.bounds, "<u2").tobytes()
    body = bytearray()
    for often in table.frequencies.ravel().tolist():
        body += bytes([often]) if often < 128 else bytes([128 | often >> 8, often & 255])
    return head + bytes(body)


def _table(source: Bytes) -> Table:
    low, symbols, contexts = struct.unpack("<iHB", source.take(7))
    if not (1 <= symbols <= MOST_SYMBOLS and 1 <= contexts <= MOST_CONTEXTS):
        raise ValueError(f"a table of {symbols} symbols in {contexts} contexts")
    bounds = tuple(source.array("uint16", contexts - 1).tolist())
    often = []
    for _ in range(symbols * contexts):
        first = source.take(1)[0]
        often.append(first if first < 128 else (first & 127) << 8 | source.take(1)[0])
    return Table(low, np.array(often, np.int64).reshape(contexts, symbols), bounds)


class Bytes:
    """Bytes that are taken one after the other, never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise ValueError("a part ends too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def array(self, dtype: str, count: int) -> Numbers:
        kind = np.dtype(dtype).newbyteorder("<")
        return np.frombuffer(self.take(count * kind.itemsize), kind).astype(dtype)

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("a part is longer than it should be")


def _type(name: Any, known: tuple[str, ...]) -> str:
    if name not in known:
        raise ValueError(f"numbers of type {name!r}"[:80])
    return str(name)


def _little(array: Numbers) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def inflated(data: bytes, most_bytes: int) -> bytes:
    """Raises ``ValueError`` for more than ``most_bytes``, before they are made."""
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(data, min(most_bytes, MOST_PART_BYTES) + 1)
    if len(found) > most_bytes or not unpacker.eof or unpacker.unused_data:
        raise ValueError("a part is longer than it may be, or cut off")
    return found
