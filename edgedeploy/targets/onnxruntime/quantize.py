"""Quantization for ONNX Runtime: int8 as QDQ pairs with calibrated ranges. Dynamic int8 is in :mod:`.dynamic`, weights
alone in :mod:`.blocks`.

ONNX Runtime's calibration keeps what each case gave until the last one has run: two numbers per tensor for min-max, every
activation for the histogram methods (percentile, entropy). It gets one case at a time instead, and merges ranges and
histograms then. Weights lie in a file meanwhile, which its session maps: with those inside the model, the quantizer, the
calibrator and the session would have them three times.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import NARROW, Assignment, assign
from edgedeploy.reference.constants import Constants
from edgedeploy.reference.export import open_onnx
from edgedeploy.reference.external import require_in_one_file, save
from edgedeploy.reference.layers import check_alive, check_followed, fused_from, layers_of, name_nodes
from edgedeploy.reference.masks import masked
from edgedeploy.reference.safety_child import outline
from edgedeploy.reference.skips import input_skips, reading_again
from edgedeploy.reference.translate import translated
from edgedeploy.targets.common import calibration_feeds
from edgedeploy.targets.onnxruntime import blocks, dynamic
from edgedeploy.targets.onnxruntime.compact import compact
from edgedeploy.targets.onnxruntime.products import drop_unused, no_integers, settle_gemms
from edgedeploy.targets.onnxruntime.smooth import OPERATORS, PRODUCTS, PRODUCTS_ALONE, SMOOTH, smooth
from edgedeploy.targets.share import check_share

CALIBRATIONS: Final = ("minmax", "percentile", "entropy")
"""The calibration methods that ONNX Runtime has of ``records.variant.CALIBRATIONS``, the default first."""
PERCENTILE: Final = 99.99
"""Percentage of values within the range, counting both tails. Chosen by measurement on the trained UNet of
:mod:`edgedeploy.targets.onnxruntime.target`."""

Ranges = Mapping[str, tuple[float, float]]
"""The least and the largest value of tensors of the reference, by name."""

NARROWED: Final = {
    "int8": "Conv, ConvTranspose, Gemm, MatMul",
    "int8-weights": "MatMul, Gemm",
    "int4-weights": "MatMul, Gemm",
    dynamic.PRECISION: "MatMul, Gemm",
}
"""The operators that each precision quantizes."""

NARROWED_BY_THE_RUNTIME: Final = ("Conv", "ConvTranspose", "Gemm")
"""Operators with float weights that ONNX Runtime makes int8 where their input and their output are rounded."""
KEEPING: Final[Mapping[str, str]] = {"optimization.disable_specified_optimizers": "WeightBiasQuantization"}
"""Session settings of a file that keeps such a layer in float beside int8 ones. That optimizer (ONNX Runtime 1.21 and later)
would round the layer's weights with one scale for all channels, and run it in int8: less exact than the int8 layer that the
plan was to spare. Earlier releases do not have it and pass over its name."""

NEVER_INT8: Final = ("BatchNormalization",)
"""A batch norm that could not be folded computes in float anyway: int8 weights would only add error."""


@dataclass(frozen=True)
class Scheme:
    """How int8 is written into the file: ``signed`` activations, weights of 7 bits, and more options of the quantizer."""

    signed: bool = False
    reduce_range: bool = False
    options: Mapping[str, bool] = field(default_factory=dict)


def write_narrow(request: BuildRequest, path: Path, ranges: Ranges | None = None) -> Mapping[str, str]:
    """The reference with its narrow layers, written to ``path``; returns the settings that its sessions need. With
    ``ranges`` of the reference's tensors no calibration case is read. Raises ``Unsupported`` or ``BuildError``."""
    open_onnx(request.reference, threads=1)  # raises with the operator's name; the preparation hides such errors
    source = outline(_named(request.reference))
    assignment = assign(request.plan, layers_of(source), request.precision)
    wanted = set(assignment.precisions.values())
    tables = {**blocks.TABLE_BITS, **({"int8": 8} if request.quantizer in (PRODUCTS_ALONE, SMOOTH) else {})}

    def narrowed_weights() -> Any:
        model = _named(request.reference)
        if wanted & {*tables}:
            blocks.weights_only(model, assignment, tables)
        if dynamic.PRECISION in wanted:
            dynamic.dynamic_eight_bits(model, assignment, weight_bits=request.weight_bits)
        return model

    if "int8" in wanted:  # nobody here holds the model meanwhile: calibration is what takes the most memory
        scheme, prepared = Scheme(reduce_range=request.weight_bits == 7), path.with_name("prepared.onnx")
        model = eight_bits(request, source, narrowed_weights(), assignment, prepared, scheme, ranges)
    else:
        model = narrowed_weights()
    narrow = narrow_nodes(model)
    sources = fused_from(source, model)
    check_followed(request.plan, assignment, sources, narrow)
    if request.precision in NARROW and request.precision in wanted - set(narrow.values()):
        found = f"the model has no {NARROWED[request.precision]} with constant weights"
        raise Unsupported(f"{request.precision} layers", found, "Search float32 instead")
    check_share(request.precision, source, assignment, {name for node in narrow for name in sources[node]})
    if "int8" in wanted:
        compact(model, source)
    save(model, path)
    return settings_of(model)


def settings_of(model: Any) -> Mapping[str, str]:
    """The session settings with which the layers of a written file have the precisions that it gives them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    rounded = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    wide = any(node.op_type in NARROWED_BY_THE_RUNTIME and node.input[1] in weights for node in model.graph.node)
    return KEEPING if rounded and wide else {}


def _named(reference: Path) -> Any:
    import onnx

    model = onnx.load(str(reference))
    name_nodes(model)
    return model


def narrow_nodes(model: Any) -> dict[str, str]:
    """Compute nodes with quantized weights in the file, by name."""
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == blocks.OPERATOR:
            found[node.name] = next(name for name, bits in blocks.BITS.items() if bits == _bits_of(node))
        elif node.op_type == dynamic.OPERATOR:
            found[node.name] = dynamic.PRECISION
        elif node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and node.input[1] in dequantized:
            found[node.name] = "int8"
    return found


def _bits_of(node: Any) -> int:
    return next(int(item.i) for item in node.attribute if item.name == "bits")


def eight_bits(
    request: BuildRequest,
    source: Any,
    model: Any,
    assignment: Assignment,
    prepared: Path,
    scheme: Scheme,
    ranges: Ranges | None = None,
) -> Any:
    """``model`` with the int8 layers of ``assignment`` as QDQ pairs; what carries an input to an output stays float
    (:mod:`edgedeploy.reference.skips`). ``prepared`` is a path for scratch; files beside it are
    written and removed. Ranges of activations are ``ranges``, or taken from the request's calibration cases. Raises
    ``Unsupported`` or ``BuildError``."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    require_in_one_file(request.reference, "static int8 by ONNX Runtime")
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    method = request.calibrator or CALIBRATIONS[0]
    given, written = prepared.with_name("given.onnx"), prepared.with_name("written.onnx")
    settle_gemms(model)
    onnx.save(model, str(given))
    del model
    with translated("int8 quantization by ONNX Runtime", "Search float32 for this architecture"):
        # Shapes are static: the symbolic pass would add nothing but a dependency on sympy.
        quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
        products_alone = request.quantizer in (PRODUCTS_ALONE, SMOOTH)
        others, ready = _left_float(request, source, assignment, prepared)
        others += (skips := input_skips(ready))
        with contextlib.redirect_stdout(io.StringIO()):  # the histogram methods print their progress
            quantize_static(
                str(prepared),
                str(written),
                None if ranges is not None else _reader(request),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=scheme.reduce_range,
                activation_type=QuantType.QInt8 if scheme.signed else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=methods[method],
                nodes_to_exclude=others,
                op_types_to_quantize=list(OPERATORS) if products_alone else None,
                extra_options=_more(scheme, method, products_alone),
                use_external_data_format=True,
                **({} if ranges is None else {"calibration_cache_path": _kept_ranges(ranges, prepared)}),
            )
    quantized = onnx.load(str(written))
    reading_again(quantized, ready, skips)
    for scratch in (given, prepared, written, written.with_name(f"{written.name}.data"), _cache(prepared)):
        scratch.unlink(missing_ok=True)
    return quantized


def _cache(prepared: Path) -> Path:
    return prepared.with_name("ranges.json")


def _kept_ranges(ranges: Ranges, prepared: Path) -> Path:
    """The ranges in the file that the quantizer reads instead of calibrating. Raises ``Unsupported`` for a release of ONNX
    Runtime that reads none."""
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, quantize_static

    if "calibration_cache_path" not in inspect.signature(quantize_static).parameters:
        asked = "int8 from given ranges by this release of ONNX Runtime"
        raise Unsupported(asked, "its quantizer takes calibration cases only", "Install a later one: 1.32 takes ranges")
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), _cache(prepared))
    return _cache(prepared)


def _left_float(request: BuildRequest, source: Any, assignment: Assignment, prepared: Path) -> tuple[list[str], Any]:
    """Nodes of the prepared file that are not to be int8, which get names of their own there, and its graph without its
    weights. The inputs of products are smoothed on the way, where that is asked for."""
    import onnx

    ready = _named(prepared)
    onnx.save(ready, str(prepared))
    sources = fused_from(source, ready)
    check_alive(request.plan, assignment, sources.values())
    others = [name for name, names in sources.items() if assignment.of(names, request.precision) != "int8"]
    others += [node.name for node in ready.graph.node if node.op_type in NEVER_INT8 or _of_groups_with_bias(node)]
    constants = Constants(ready)
    others += [node.name for node in ready.graph.node if no_integers(node, constants)]
    others += masked(ready)
    if request.quantizer == SMOOTH:
        narrow = {name for name, names in sources.items() if names} - {*others}
        others += _smoothed(ready, narrow, request, prepared)
    return others, outline(ready)


def _of_groups_with_bias(node: Any) -> bool:
    """The quantizer counts a scale for each output channel of one group, and a bias for each of all groups."""
    grouped = node.op_type == "ConvTranspose" and any(item.name == "group" and item.i > 1 for item in node.attribute)
    return grouped and len(node.input) > 2


def _smoothed(ready: Any, narrow: set[str], request: BuildRequest, prepared: Path) -> list[str]:
    """Write ``ready`` with smoothed inputs of the products ``narrow`` to ``prepared``. Returns the nodes that were added."""
    import onnx

    added = smooth(ready, narrow, calibration_feeds(request), prepared.with_name("exposed.onnx"))
    drop_unused(ready)
    onnx.save(ready, str(prepared))
    return added


def _more(scheme: Scheme, method: str, products_alone: bool) -> dict[str, Any]:
    more: dict[str, Any] = {**scheme.options, "CalibStridedMinMax": 1}
    if method == "percentile":
        more["CalibPercentile"] = PERCENTILE
    if products_alone:  # their kernels give floats; a convolution's has to give integers
        more["OpTypesToExcludeOutputQuantization"] = list(PRODUCTS)
    return more


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
