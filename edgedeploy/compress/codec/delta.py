"""What a hospital that has one release is sent for the next: how the codes differ from what the old weights predict.

    "EDDELTA" 0x00 version(1)  SHA-256 of the old weights(32), of the new ones(32)  length of the list (u32)
    list: JSON, deflated       names that stay as they are, and names whose codes are told as differences
    a packed file              of all names that change

An old weight predicts the code that is nearest to it on the new steps. It is applied to the weights that it was made for
alone, and gives the new ones in every bit or nothing.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from edgedeploy.compress.codec.coded import Coded, Codes, Numbers, Stepped, digest_of_weights
from edgedeploy.compress.codec.container import Packed, from_bytes, inflated, to_bytes
from edgedeploy.compress.codec.rounding import entropy_bits
from edgedeploy.errors import DataError
from edgedeploy.files.parsing import parsed

MAGIC: Final = b"EDDELTA\0"
VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sB32s32sI")
_MOST_LIST_BYTES: Final = 16 << 20
FARTHEST: Final = 500
"""Codes away from what is predicted: beyond it the code itself is shorter."""


def update_bytes(old: Mapping[str, Numbers], new: Packed) -> bytes:
    """What makes the decoded weights of ``new`` out of the decoded weights ``old``."""
    arrays = new.decoded()
    same = sorted(name for name in arrays if name in old and _equal(old[name], arrays[name]))
    told: dict[str, Coded] = {}
    differ = []
    for name, one in new.arrays.items():
        if name in same:
            continue
        difference = _difference(old.get(name), one)
        if difference is not None:
            differ.append(name)
        told[name] = one if difference is None else difference
    text = json.dumps({"same": same, "differ": sorted(differ)}, separators=(",", ":")).encode()
    names = zlib.compress(text, 9)
    digests = (bytes.fromhex(digest_of_weights(each)) for each in (old, arrays))
    return _HEAD.pack(MAGIC, VERSION, *digests, len(names)) + names + to_bytes(Packed(told, new.coder))


def updated(old: Mapping[str, Numbers], data: bytes) -> dict[str, Numbers]:
    """The new weights. Raises ``DataError`` for an update that is damaged or made for other weights than ``old``."""
    if len(data) < _HEAD.size or data[: len(MAGIC)] != MAGIC:
        raise DataError("apply an update", "it is no update of packed weights", "Name a file that `edgedeploy` made")
    _, version, base, wanted, length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise DataError("apply an update", f"version {version}, and {VERSION} is read", "Use the release that made it")
    if (found := digest_of_weights(old)) != base.hex():
        text = f"it is for the weights {base.hex()[:12]}, and {found[:12]} are here"
        raise DataError("apply an update", text, "Fetch the whole release, or the one that the update is for")
    start = _HEAD.size + length
    try:
        names = parsed(inflated(data[_HEAD.size : start], _MOST_LIST_BYTES))
        same, differ = ([str(name) for name in names[key]] for key in ("same", "differ"))
        packed, arrays = from_bytes(data[start:], "an update")
        arrays |= {name: _added(old[name], packed.arrays[name]) for name in differ}
        arrays |= {name: old[name] for name in same}
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, zlib.error) as exc:
        raise DataError("apply an update", f"it is damaged ({type(exc).__name__})", "Fetch it anew") from exc
    if digest_of_weights(arrays) != wanted.hex():
        raise DataError("apply an update", "the weights that come out are not those of the release", "Fetch it anew")
    return dict(sorted(arrays.items()))


def predicted(old: Numbers, one: Stepped) -> Codes:
    """The code nearest to each old weight on the steps of ``one``: a quotient of float64, rounded to even."""
    rows = len(one.steps)
    grid = one.grid if one.quarters is not None else one.steps.reshape(rows, *(1 for _ in one.shape[1:]))
    codes = np.rint(old.astype(np.float64) / np.broadcast_to(grid, one.shape).astype(np.float64))
    return np.asarray(np.clip(np.nan_to_num(codes), -(2.0**40), 2.0**40).reshape(-1), np.int64)


def _difference(old: Numbers | None, one: Coded) -> Stepped | None:
    """The array with differences in place of codes, where that is shorter."""
    if not isinstance(one, Stepped) or old is None or old.shape != one.shape or old.dtype != np.float32:
        return None
    codes = one.codes - predicted(old, one)
    if not len(codes) or np.abs(codes).max() > FARTHEST or entropy_bits(codes) >= entropy_bits(one.codes):
        return None
    return replace(one, codes=codes)


def _added(old: Numbers, one: Coded) -> Numbers:
    if not isinstance(one, Stepped) or old.shape != one.shape:
        raise ValueError("a difference of another array")
    return replace(one, codes=one.codes + predicted(old, one)).decoded()


def _equal(first: Numbers, second: Numbers) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
