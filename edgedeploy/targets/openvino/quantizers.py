"""The quantizers that OpenVINO's int8 may come from: NNCF in three ways, and ONNX Runtime's static quantizer.

ONNX Runtime writes QuantizeLinear/DequantizeLinear pairs, and OpenVINO keeps their scales. What differs from NNCF:
activations have the extremes over all calibration cases for ranges, joined tensors keep ranges of their own, and no bias is
corrected. None is the better one everywhere, so each is a value of the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.precision import Assignment
from edgedeploy.targets.onnxruntime.quantize import CALIBRATIONS as ONNXRUNTIME_CALIBRATIONS
from edgedeploy.targets.onnxruntime.quantize import Scheme, eight_bits
from edgedeploy.targets.openvino.quantize import CALIBRATIONS, TRANSFORMER, UNCORRECTED

ONNXRUNTIME: Final = "onnxruntime"
QUANTIZERS: Final[Mapping[str, tuple[str, ...]]] = {
    "nncf": CALIBRATIONS,
    UNCORRECTED: ("minmax",),
    TRANSFORMER: CALIBRATIONS,
    ONNXRUNTIME: ONNXRUNTIME_CALIBRATIONS,
}
"""The quantizers with the calibration methods of each; the defaults first."""


def pairs_of_onnxruntime(request: BuildRequest, source: Any, assignment: Assignment, scratch: Path) -> Any:
    """The ONNX model ``source`` with the int8 layers of ``assignment`` as ONNX Runtime's quantizer writes them. Files in
    ``scratch`` are written and removed. Raises ``Unsupported`` or ``BuildError``.

    Biases stay float: OpenVINO would read 32-bit ones as a constant, a conversion and a scale each, and compute the same.
    """
    import onnx

    model = onnx.ModelProto.FromString(source.SerializeToString())
    scheme = Scheme(reduce_range=request.weight_bits == 7, options={"QuantizeBias": False})
    return eight_bits(request, source, model, assignment, scratch / "prepared.onnx", scheme)
