"""A packed file in every byte, from the weights of the release before it: what a link carries where a hospital has those.

    lengths (2 x u32), lanes (u16)
    everything of the packed file before its stream, as it is
    tables: deflated, and stream     codes, or how they differ from what the old weights predict

The stream is not sent: it is coded again from the codes, by integers alone, and so it has the same bits everywhere. Files
whose stream is zstd's are sent whole, because another release of zstd may pack otherwise.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from typing import Final

import numpy as np

from edgedeploy.compress.codec.coded import Coded, Codes, Numbers, Stepped
from edgedeploy.compress.codec.container import (
    Skeleton,
    coded_stream,
    decoded_codes,
    from_bytes,
    inflated,
    skeleton_of,
    tables_of,
    without_stream,
)
from edgedeploy.compress.codec.delta import FARTHEST, predicted
from edgedeploy.compress.codec.rans import MOST_CONTEXTS, MOST_SYMBOLS, Table, encode
from edgedeploy.compress.codec.rounding import entropy_bits
from edgedeploy.errors import DataError

_HEAD: Final = struct.Struct("<2IH")


def rebased_bytes(old: Mapping[str, Numbers], data: bytes) -> bytes | None:
    """What makes the packed file ``data`` out of the decoded weights ``old``; None where that is no shorter or cannot be."""
    packed, _ = from_bytes(data)
    found = skeleton_of(data)
    if found.coder != "rans":
        return None
    told: list[Codes] = []
    differ = bytearray()
    for name in found.counts:
        one = packed.arrays[name]
        difference = _difference(old.get(name), one)
        differ.append(difference is not None)
        told.append(one.codes if difference is None else difference)  # type: ignore[union-attr]  # those have codes
    if not any(differ):
        return None
    tables, stream, lanes = coded_stream(told, "rans")
    before, packed_tables = without_stream(data), zlib.compress(bytes(differ) + tables, 9)
    made = _HEAD.pack(len(before), len(packed_tables), lanes) + before + packed_tables + stream
    return made if len(made) < len(data) else None


def rebased(old: Mapping[str, Numbers], told: bytes, sha256: str) -> bytes:
    """The packed file. Raises ``DataError`` for an update that is damaged, or is for other weights than ``old``."""
    try:
        data = _made(old, told)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, struct.error, zlib.error) as exc:
        found = f"it is damaged ({type(exc).__name__}: {exc})"[:200]
        raise DataError("apply an update of packed weights", found, "Fetch it anew") from exc
    if hashlib.sha256(data).hexdigest() != sha256:
        found = "the file that comes out is not the one that went in"
        raise DataError("apply an update of packed weights", found, "Fetch it anew, or the whole release")
    return data


def _made(old: Mapping[str, Numbers], told: bytes) -> bytes:
    first, second, lanes = _HEAD.unpack_from(told)
    start = _HEAD.size + first
    before, rest = told[_HEAD.size : start], told[start:]
    found = skeleton_of(before, whole=False)
    counts = list(found.counts.values())
    inner = inflated(rest[:second], MOST_SYMBOLS * MOST_CONTEXTS * 4 * (len(counts) + 1) + len(counts))
    codes = decoded_codes(counts, inner[len(counts) :], rest[second:], "rans", lanes)
    whole = [
        each + predicted(_of_shape(old[name], one), one) if differs and isinstance(one, Stepped) else each
        for (name, one), each, differs in zip(_coded(found), codes, inner[: len(counts)], strict=True)
    ]
    return before + _stream(whole, tables_of(counts, found.tables), found.lanes)


def _stream(codes: list[Codes], tables: list[tuple[int, Table]], lanes: int) -> bytes:
    """As it was packed. Raises ``ValueError`` for codes that no table has."""
    pairs = list(zip([each for each in codes if len(each)], [table for _, table in tables], strict=True))
    for each, table in pairs:
        if int(each.min()) < table.low or int(each.max()) >= table.low + table.frequencies.shape[1]:
            raise ValueError("codes that the file's own tables do not have")
    if not 1 <= lanes <= 1024:
        raise ValueError(f"{lanes} lanes")
    with np.errstate(all="ignore"):  # of a symbol that a damaged table says never comes: the hash tells
        return encode(pairs, lanes)


def _coded(found: Skeleton) -> list[tuple[str, Coded]]:
    return [(name, found.arrays[name]) for name in found.counts]


def _difference(old: Numbers | None, one: Coded) -> Codes | None:
    """Differences in place of codes, where they are shorter."""
    if not isinstance(one, Stepped) or old is None or old.shape != one.shape or old.dtype != np.float32:
        return None
    codes = one.codes - predicted(old, one)
    if not len(codes) or np.abs(codes).max() > FARTHEST or entropy_bits(codes) >= entropy_bits(one.codes):
        return None
    return np.asarray(codes, np.int64)


def _of_shape(old: Numbers, one: Stepped) -> Numbers:
    if old.shape != one.shape or old.dtype != np.float32:
        raise ValueError("a difference of another array")
    return old
