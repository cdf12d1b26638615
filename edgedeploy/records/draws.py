"""A metric of a whole split on resampled cases, as it is kept with a measurement."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_STORED = np.dtype("<f4")


@dataclass(frozen=True)
class SplitDraws:
    """``drawn`` names what was drawn: two metrics with the same name were computed on the same cases, draw by draw, and
    may be compared in pairs. ``packed`` are the values: little-endian float32 in base64, NaN where a draw left the metric
    undefined."""

    drawn: str
    packed: str

    def __post_init__(self) -> None:
        try:
            size_bytes = len(base64.b64decode(self.packed, validate=True))
        except binascii.Error as exc:
            raise ValueError(f"draws of a split are base64, but got {self.packed[:40]!r} ({exc})") from None
        if size_bytes % _STORED.itemsize:
            raise ValueError(f"draws of a split are float32, but got {size_bytes} bytes")

    @classmethod
    def of(cls, drawn: str, values: npt.NDArray[np.float64]) -> SplitDraws:
        return cls(drawn, base64.b64encode(values.astype(_STORED).tobytes()).decode("ascii"))

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Shape (draws,)."""
        return np.frombuffer(base64.b64decode(self.packed), _STORED).astype(np.float64)
