"""Float32, float16 and symmetric int8 ONNX that TensorRT takes.

int8 by ONNX Runtime's quantizer: signed and symmetric, weights per channel as float with a Q and DQ of their own, biases
left float, one DQ a consumer. ONNX Runtime's defaults (uint8 activations, int32 biases) are refused by TensorRT's parser.
float16 is written into the file, inputs and outputs stay float32: from 11.0 on the file's types alone decide.

The exporter writes operator set 20, which JetPack 5 (TensorRT 8.5) does not read. So the reference is first converted
down to 17, where that can be done and changes no output; else its own operator set stays, and the lint says which boards
that costs.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.protocols import Array, BuildRequest
from edgedeploy.targets.common import calibration_feeds, check_outputs, first_feed, translated
from edgedeploy.targets.graph import opset_of
from edgedeploy.targets.parity import compare, within
from edgedeploy.targets.reference import open_onnx, random_inputs

LOWER_OPSET: Final = 17
SAME_OUTPUT: Final = 1e-6
"""Largest relative L2 distance of a converted graph: the same operators in the same order, so the same numbers."""

QDQ_OPTIONS: Final = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
    "DedicatedQDQPair": True,
}


def write_model(request: BuildRequest, path: Path) -> None:
    """Write the model of the asked precision and run it once on the CPU. Raises ``Unsupported``, ``BuildError``,
    ``DataError``."""
    feed = first_feed(request) if request.precision == "int8" else random_inputs(request.inputs)
    source = path.with_name("source.onnx")
    _lower(request, source)
    if request.precision == "int8":
        _quantize(source, request, path)
    elif request.precision == "float16":
        _narrow(source, path)
    else:
        shutil.copyfile(source, path)
    source.unlink()
    _prove(path, request, feed)


def _lower(request: BuildRequest, path: Path) -> None:
    """The reference in operator set 17 when it has a newer one and the converter can; as it is otherwise.

    The converter has no rule for some operators, and says so in exceptions of several kinds. What it makes is taken only
    when it answers a random input as the reference does.
    """
    import onnx

    session = open_onnx(request.reference, threads=1)  # names the operator that cannot be loaded
    shutil.copyfile(request.reference, path)
    with translated(f"{request.reference.name} as an ONNX model", "Export it again"):
        model = onnx.load(str(request.reference))
    if opset_of(model) <= LOWER_OPSET:
        return
    try:
        lowered = onnx.version_converter.convert_version(model, LOWER_OPSET)
        onnx.checker.check_model(lowered, full_check=True)
        onnx.save(lowered, str(path))
        feed = random_inputs(request.inputs)
        names = [spec.name for spec in request.outputs]
        wanted = dict(zip(names, session.run(names, feed), strict=True))
        found = dict(zip(names, open_onnx(path, threads=1).run(names, feed), strict=True))
        same = all(within(distance, SAME_OUTPUT) for distance in compare(wanted, found).values())
    except Exception:  # any failure means: keep the operator set that the file has
        same = False
    if not same:
        shutil.copyfile(request.reference, path)


def _quantize(source: Path, request: BuildRequest, path: Path) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name("prepared.onnx")
    with translated("symmetric int8 for TensorRT", "Search float16 for this architecture"):
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            _reader(request),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=QDQ_OPTIONS,
        )
    prepared.unlink()
    if not _quantized_weights(path):
        raise Unsupported("int8 layers", "the model has no layer with constant weights", "Search float16 instead")


def _quantized_weights(path: Path) -> int:
    """Quantizers of constants: the weights that would run in int8."""
    import onnx

    graph = onnx.load(str(path)).graph
    constants = {tensor.name for tensor in graph.initializer}
    return sum(node.op_type == "QuantizeLinear" and node.input[0] in constants for node in graph.node)


def _reader(request: BuildRequest) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self, feeds: Iterator[dict[str, Array]]) -> None:
            self._feeds = feeds

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    return Reader(calibration_feeds(request))


def _narrow(source: Path, path: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with translated("float16 for TensorRT", "Search float32 for this architecture"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns for each weight that is too small; parity decides
        model = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)
        del model.graph.value_info[:]  # they keep the types from before
        onnx.save(model, str(path))


def _prove(path: Path, request: BuildRequest, feed: dict[str, Array]) -> None:
    """Run the file once in ONNX Runtime: not TensorRT, but a file that gives no numbers here gives none there."""
    session = open_onnx(path, threads=1)
    names = [output.name for output in session.get_outputs()]
    with translated(f"one inference of the {request.precision} model", "Try a wider precision", Unsupported):
        values = session.run(names, feed)
    check_outputs(f"the {request.precision} model", dict(zip(names, values, strict=True)), request.outputs)
