"""A year of series in few bytes: whole numbers of a scale of their own, in planes of bytes that compress well.

The layout, which ``trend.js`` reads: all losses (series after series, night after night), then all limits, each as 16-bit
whole numbers of which first all low bytes stand and then all high ones; then a byte of status for each. A limit is the
difference to the one before, because it rarely changes. :data:`NONE` stands where there is none. All of it is one zlib
stream in base64.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edgedeploy.nightly.results.history import STATUSES, Line

NONE: Final = -32768
LARGEST: Final = 32000
FINEST: Final = 1e-4
"""Of a loss: a hundredth of a percent, or a ten thousandth of a task's metric."""

NO_STATUS: Final = len(STATUSES)
"""A night on which the series was not measured."""

Whole = npt.NDArray[np.int16]


def scale_of(line: Line) -> float:
    """What one step is worth: so fine that the largest number of the series fits."""
    largest = max((abs(value) for value in (*line.loss, *line.limit) if math.isfinite(value)), default=0.0)
    return max(FINEST, largest / LARGEST)


def packed(lines: Sequence[Line], nights: int) -> str:
    """``lines`` over ``nights`` nights as the text that the page holds; the scale of each is :func:`scale_of` it."""
    shape = (len(lines), nights)
    loss, limit = np.full(shape, NONE, np.int16), np.full(shape, NONE, np.int16)
    status = np.full(shape, NO_STATUS, np.uint8)
    for row, line in enumerate(lines):
        at, scale = np.asarray(line.at, dtype=np.intp), scale_of(line)
        loss[row, at], limit[row, at] = _whole(line.loss, scale), _whole(line.limit, scale)
        status[row, at] = np.frombuffer(bytes(line.status), np.uint8)
    steps = np.diff(
        limit, axis=1, prepend=np.zeros((len(lines), 1), np.int16)
    )  # wraps around, and so does adding them up
    data = b"".join([_planes(loss), _planes(steps), status.tobytes()])
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _whole(values: Sequence[float], scale: float) -> Whole:
    found = np.asarray(values, dtype=float)
    return np.where(np.isfinite(found), np.rint(np.nan_to_num(found) / scale), NONE).astype(np.int16)


def _planes(values: Whole) -> bytes:
    both = values.astype("<i2").view(np.uint8).reshape(-1, 2)
    return both[:, 0].tobytes() + both[:, 1].tobytes()
