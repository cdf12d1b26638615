"""Compressed ONNX: the reference, or its int8 by ONNX Runtime's quantizer, in one file of an own format."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from edgedeploy import (
    INT8_DOT_PRODUCTS,
    Artifact,
    BuildRequest,
    Demand,
    Readiness,
    SessionSource,
    Unsupported,
    build_artifact,
    look_for,
)
from edgedeploy_capsule.session import MAGIC

ENTRY = "model.capsule"


class CapsuleTarget:
    name = "capsule"
    session = SessionSource("edgedeploy_capsule.session", packages=("onnxruntime", "onnxruntime-gpu"))
    precisions: tuple[str, ...] = ("float32", "int8")
    demands: Mapping[str, Demand] = {"int8": Demand(fast_with=INT8_DOT_PRODUCTS)}
    extra = ""

    def probe(self) -> Readiness:
        return look_for(("edgedeploy-capsule", "onnxruntime", "onnx"))

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        return build_artifact(self, request, folder, ENTRY, write)


def write(request: BuildRequest, scratch: Path) -> Mapping[str, str]:
    """The one file; its session needs no settings."""
    with TemporaryDirectory() as desk:
        model = request.reference if request.precision == "float32" else quantized(request, Path(desk))
        (scratch / ENTRY).write_bytes(MAGIC + zlib.compress(model.read_bytes(), 9))
    return {}


def quantized(request: BuildRequest, desk: Path) -> Path:
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """ONNX Runtime's own way to ask for one case after the other."""

        def __init__(self) -> None:
            self._cases = request.calibration()

        def get_next(self) -> dict[str, object] | None:
            return next(self._cases, None)

    onnxruntime.InferenceSession(str(request.reference))  # names an operator that it lacks; the quantizer would not
    prepared, made = desk / "prepared.onnx", desk / "made.onnx"
    quant_pre_process(str(request.reference), str(prepared), skip_symbolic_shape=True)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(made), Reader(), per_channel=True, **types)
    if not any(node.op_type == "QuantizeLinear" for node in onnx.load(str(made)).graph.node):
        raise Unsupported("int8 layers", "the model has nothing that can be quantized", "Search float32 instead")
    return made
