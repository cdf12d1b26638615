"""Arrays of a bundle (``.npy``), held against their header before anything is allocated."""

from __future__ import annotations

import io
import math
from typing import Any

from edgedeploy.runtime.faults import BundleError

_KINDS = "biuf"
"""Booleans, whole numbers and floats: an object would be a pickle."""


def read_array(data: bytes, name: str) -> Any:
    """The array of a ``.npy`` file, in memory of its own. Raises :class:`BundleError` ``malformed``."""
    import numpy as np

    stream = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(stream)](stream)
    except Exception as exc:  # numpy parses the header as Python's literals, which fail in many ways
        raise _malformed(name, f"its header cannot be read ({type(exc).__name__})") from exc
    if dtype.kind not in _KINDS:
        raise _malformed(name, f"its type is {str(dtype)[:40]}, and numbers were expected")
    size_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size_bytes != len(data) - stream.tell():
        raise _malformed(name, f"its header says {size_bytes} bytes, and {len(data) - stream.tell()} follow")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    try:
        return np.array(flat.reshape(shape, order="F" if fortran else "C"), dtype.newbyteorder("="))
    except (TypeError, ValueError, OverflowError) as exc:  # more dimensions than there can be, or none that is a number
        raise _malformed(name, f"its shape is none of an array ({type(exc).__name__})") from exc


def _malformed(name: str, found: str) -> BundleError:
    return BundleError("malformed", f"{name}: {found}")
