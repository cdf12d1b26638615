"""Quantization for ONNX Runtime: int8 as QDQ pairs with calibrated ranges, 4-bit weights as MatMulNBits. Dynamic int8
is in :mod:`.dynamic`.

Min-max calibration keeps two numbers per tensor and case. The histogram methods (percentile, entropy) would keep every
activation of every case until the last one has run. They get one case at a time instead: ONNX Runtime then merges its
histograms and frees the activations.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import NARROW, Assignment, assign
from edgedeploy.reference.export import open_onnx
from edgedeploy.reference.layers import check_alive, check_followed, fused_from, layers_of, name_nodes
from edgedeploy.reference.skips import input_skips, reading_again
from edgedeploy.reference.translate import translated
from edgedeploy.targets.common import calibration_feeds
from edgedeploy.targets.onnxruntime import dynamic
from edgedeploy.targets.onnxruntime.compact import compact

CALIBRATIONS: Final = ("minmax", "percentile", "entropy")
"""The calibration methods that ONNX Runtime has of ``records.variant.CALIBRATIONS``, the default first."""
PERCENTILE: Final = 99.99
"""Percentage of values within the range, counting both tails. Chosen by measurement on the trained UNet of
:mod:`edgedeploy.targets.onnxruntime.target`."""

BLOCK: Final = 32
"""Weights that share one scale in 4 bits."""


NARROWED: Final = {
    "int8": "Conv, ConvTranspose, Gemm, MatMul",
    "int4-weights": "MatMul",
    dynamic.PRECISION: "MatMul, Gemm",
}
"""The operators that each precision quantizes."""

NEVER_INT8: Final = ("BatchNormalization",)
"""A batch norm that could not be folded computes in float anyway: int8 weights would only add error."""


@dataclass(frozen=True)
class Scheme:
    """How int8 is written into the file: ``signed`` activations, weights of 7 bits, and more options of the quantizer."""

    signed: bool = False
    reduce_range: bool = False
    options: Mapping[str, bool] = field(default_factory=dict)


def write_narrow(request: BuildRequest, path: Path) -> None:
    """The reference with its narrow layers, written to ``path``. Raises ``Unsupported`` or ``BuildError``."""
    import onnx

    open_onnx(request.reference, threads=1)  # raises with the operator's name; the preparation hides such errors
    source = onnx.load(str(request.reference))
    name_nodes(source)
    assignment = assign(request.plan, layers_of(source), request.precision)
    wanted = set(assignment.precisions.values())
    model = onnx.ModelProto.FromString(source.SerializeToString())
    if "int4-weights" in wanted:
        model = _four_bits(model, assignment)
    if dynamic.PRECISION in wanted:
        dynamic.dynamic_eight_bits(model, assignment, weight_bits=request.weight_bits)
    if "int8" in wanted:
        scheme = Scheme(reduce_range=request.weight_bits == 7)
        model = eight_bits(request, source, model, assignment, path.with_name("prepared.onnx"), scheme)
    narrow = narrow_nodes(model)
    sources = fused_from(source, model)
    check_followed(request.plan, assignment, sources, narrow)
    if request.precision in NARROW and request.precision in wanted - set(narrow.values()):
        found = f"the model has no {NARROWED[request.precision]} with constant weights"
        raise Unsupported(f"{request.precision} layers", found, "Search float32 instead")
    if "int8" in wanted:
        compact(model, source)
    onnx.save(model, str(path))


def narrow_nodes(model: Any) -> dict[str, str]:
    """Compute nodes with quantized weights in the file, by name."""
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            found[node.name] = "int4-weights"
        elif node.op_type == dynamic.OPERATOR:
            found[node.name] = dynamic.PRECISION
        elif node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and node.input[1] in dequantized:
            found[node.name] = "int8"
    return found


def _four_bits(model: Any, assignment: Assignment) -> Any:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)  # it tells of every node it skips
    others = [name for name, precision in assignment.precisions.items() if precision != "int4-weights"]
    with translated("4-bit weights by ONNX Runtime", "Search float32 for this architecture"):
        quantizer = MatMulNBitsQuantizer(model, block_size=BLOCK, is_symmetric=True, nodes_to_exclude=others)
        quantizer.process()
    return quantizer.model.model


def eight_bits(
    request: BuildRequest, source: Any, model: Any, assignment: Assignment, prepared: Path, scheme: Scheme
) -> Any:
    """``model`` with the int8 layers of ``assignment`` as QDQ pairs; what carries an input to an output stays float
    (:mod:`edgedeploy.reference.skips`). ``prepared`` is a path for scratch; files beside it are
    written and removed. Raises ``Unsupported`` or ``BuildError``."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    method = request.calibrator or CALIBRATIONS[0]
    given, written = prepared.with_name("given.onnx"), prepared.with_name("written.onnx")
    onnx.save(model, str(given))
    with translated("int8 quantization by ONNX Runtime", "Search float32 for this architecture"):
        # Shapes are static: the symbolic pass would add nothing but a dependency on sympy.
        quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
        ready = onnx.load(str(prepared))
        name_nodes(ready)
        onnx.save(ready, str(prepared))
        sources = fused_from(source, ready)
        check_alive(request.plan, assignment, sources.values())
        others = [name for name, names in sources.items() if assignment.of(names, request.precision) != "int8"]
        others += [node.name for node in ready.graph.node if node.op_type in NEVER_INT8]
        others += (skips := input_skips(ready))
        extra: dict[str, Any] = {**scheme.options, **({} if method == "minmax" else {"CalibStridedMinMax": 1})}
        if method == "percentile":
            extra["CalibPercentile"] = PERCENTILE
        with contextlib.redirect_stdout(io.StringIO()):  # the histogram methods print their progress
            quantize_static(
                str(prepared),
                str(written),
                _reader(request),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=scheme.reduce_range,
                activation_type=QuantType.QInt8 if scheme.signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=methods[method],
                nodes_to_exclude=others,
                extra_options=extra,
            )
    quantized = onnx.load(str(written))
    reading_again(quantized, ready, skips)
    for scratch in (given, prepared, written):
        scratch.unlink()
    return quantized


def _reader(request: BuildRequest) -> Any:
    """The calibration cases behind the toolchain's reader interface: one at a time, loaded when needed. With a stride,
    the toolchain asks for their number and then for one range after the other."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self, feeds: Iterator[dict[str, Array]]) -> None:
            self._feeds = feeds
            self._left: int | None = None

        def __len__(self) -> int:
            return sum(1 for _ in calibration_feeds(request))

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = end_index - start_index

        def get_next(self) -> dict[str, Array] | None:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    return None
            return next(self._feeds, None)

    return Reader(calibration_feeds(request))
