"""ONNX Runtime on CPUs: float32 as exported, int8 as QDQ.

The int8 recipe was chosen by measurement (trained 16-channel UNet, 128 x 128, 2 threads of a Zen 4 with VNNI, interleaved
medians; relative L2 to float32; Dice was 0.938 to 0.940 for all):

    float32 6.6 ms | unsigned activations, min-max 3.4 ms, 0.009 | signed activations 5.7 ms, 0.009
    percentile 99.99 3.5 ms, 0.011 (worst case 0.036) | entropy 3.5 ms, 0.009, builds 4 times slower
    head left in float32 3.5 ms, 0.007 | weights in 7 bits 3.5 ms, 0.012

Min-max also needs no memory beyond two numbers a tensor and case, where the histogram calibrators keep every activation.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.ability import INT8_DOT_PRODUCTS, Demand
from edgedeploy.artifact import Artifact, sha256_file
from edgedeploy.errors import Unsupported
from edgedeploy.protocols import Array, BuildRequest, Readiness
from edgedeploy.targets.common import (
    calibration_feeds,
    check_outputs,
    first_feed,
    look_for,
    require,
    staged,
    translated,
)
from edgedeploy.targets.reference import open_onnx, random_inputs

ENTRY: Final = "model.onnx"
COMPUTE_OPERATORS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class OnnxRuntimeTarget:
    """``reduce_range`` keeps weights to 7 bits: for x86 boards without VNNI, whose 16-bit accumulators saturate otherwise
    (such an artifact fails parity on the board)."""

    name = "onnxruntime"
    precisions: tuple[str, ...] = ("float32", "int8")
    demands: Mapping[str, Demand] = {"int8": Demand(fast_with=INT8_DOT_PRODUCTS)}
    extra = "study"

    def __init__(self, *, reduce_range: bool = False) -> None:
        self._reduce_range = reduce_range

    def probe(self) -> Readiness:
        return look_for(("onnxruntime", "onnx"), self.extra)

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """See :class:`edgedeploy.protocols.Target`. One file, no session settings."""
        versions = require(self, request.precision)
        with staged(folder) as scratch:
            path = scratch / ENTRY
            if request.precision == "int8":
                feed = first_feed(request)
                _quantize(request, path, self._reduce_range)
            else:
                feed = random_inputs(request.inputs)
                shutil.copyfile(request.reference, path)
            _prove(path, request, feed)
        return Artifact.of_folder(
            folder,
            target=self.name,
            precision=request.precision,
            entry=ENTRY,
            inputs=request.inputs,
            outputs=request.outputs,
            settings={},
            reference_sha256=sha256_file(request.reference),
            built_with=versions,
        )


def _quantize(request: BuildRequest, path: Path, reduce_range: bool) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name("prepared.onnx")
    open_onnx(request.reference, threads=1)  # the preparation swallows what it cannot load; this one names the operator
    with translated("int8 quantization by ONNX Runtime", "Search float32 for this architecture"):
        # Shapes are static: the symbolic pass would add nothing but a dependency on sympy.
        quant_pre_process(str(request.reference), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            _reader(request),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    prepared.unlink()


def _reader(request: BuildRequest) -> Any:
    """The calibration cases as the toolchain wants them: one at a time, fetched when asked for."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self, feeds: Iterator[dict[str, Array]]) -> None:
            self._feeds = feeds

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    return Reader(calibration_feeds(request))


def _prove(path: Path, request: BuildRequest, feed: dict[str, Array]) -> None:
    """Open the file and run it once. Raises ``Unsupported`` when it does not load, is not quantized or gives no numbers."""
    if request.precision == "int8" and not _quantized_layers(path):
        operators = ", ".join(COMPUTE_OPERATORS)
        raise Unsupported(
            "int8 layers", f"the model has no {operators} with constant weights", "Search float32 instead"
        )
    session = open_onnx(path, threads=1)
    names = [output.name for output in session.get_outputs()]
    with translated(f"one inference of the {request.precision} model", "Try a wider precision", Unsupported):
        values = session.run(names, feed)
    check_outputs(f"the {request.precision} model", dict(zip(names, values, strict=True)), request.outputs)


def _quantized_layers(path: Path) -> int:
    """Compute nodes whose weights come out of a DequantizeLinear."""
    import onnx

    nodes = onnx.load(str(path)).graph.node
    dequantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return sum(node.op_type in COMPUTE_OPERATORS and node.input[1] in dequantized for node in nodes)
