"""int8 by ranges that somebody else measured, in a study: ONNX Runtime's target without calibration of its own.

The file is what :func:`edgedeploy.federated.calibration.write_ranges` writes: ranges of the reference's float tensors by
name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgedeploy.errors import DataError
from edgedeploy.files import parsed, read_plain
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.precision import CALIBRATED
from edgedeploy.targets.onnxruntime.quantize import Ranges
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

FORM: Final = "edgedeploy.ranges/1"
MOST_BYTES: Final = 16 << 20


class RangedOnnxRuntime(OnnxRuntimeTarget):
    """float32 as exported, int8 by ``ranges``; ``sha256`` is of the file that they were read from."""

    precisions: tuple[str, ...] = ("float32", "int8")
    layer_precisions: tuple[str, ...] = ("float32", "int8")
    calibrations: tuple[str, ...] = ()
    quantizers: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, ranges: Ranges, sha256: str) -> None:
        self.ranges = ranges
        self.sha256 = sha256

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """See :class:`edgedeploy.interfaces.target.Target`; the request's calibration cases are not read."""
        calibrated = any(name in CALIBRATED for name in (request.precision, *request.plan.precisions))
        if request.quantized or not calibrated:
            return super().build(request, folder)
        return self.build_from_ranges(request, self.ranges, folder)


def read_ranges(path: Path) -> tuple[dict[str, tuple[float, float]], str]:
    """The ranges of a file by tensor, and the file's SHA-256. Raises ``DataError`` for a file that is none, and for a range
    that is no range."""
    asked = f"ranges {path}"
    try:
        data = read_plain(path, MOST_BYTES)
        found = parsed(data)
        if found.get("form") != FORM or not isinstance(found.get("ranges"), dict) or not found["ranges"]:
            raise ValueError(f"it is no {FORM}")
        ranges = {str(name): _range(str(name), pair) for name, pair in found["ranges"].items()}
    except (OSError, ValueError, RecursionError) as exc:
        found_text = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        raise DataError(asked, found_text, "Write it with edgedeploy.federated.calibration.write_ranges") from None
    return ranges, hashlib.sha256(data).hexdigest()


def _range(name: str, pair: object) -> tuple[float, float]:
    numbers = isinstance(pair, list) and len(pair) == 2 and all(type(item) in (int, float) for item in pair)
    if not numbers or not (math.isfinite(pair[0]) and math.isfinite(pair[1]) and pair[0] <= 0 <= pair[1]):  # type: ignore[index]
        raise ValueError(f"the range of {name[:80]!r} is not two numbers around zero")
    return float(pair[0]), float(pair[1])  # type: ignore[index]
