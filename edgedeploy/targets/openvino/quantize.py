"""Narrow precisions for OpenVINO by NNCF: int8 with ranges from calibration, 8- and 4-bit weights of matrix products and
tables.

Operations are named after the nodes of the reference before NNCF sees them (:mod:`edgedeploy.targets.openvino.layers`),
so that a plan's layers can be told in its terms.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import NARROW, Assignment
from edgedeploy.reference.parity import TOLERANCE, worst_distance
from edgedeploy.reference.translate import translated
from edgedeploy.targets.common import CALIBRATION_LIMIT, calibration_feeds
from edgedeploy.targets.openvino.constants import PRODUCTS
from edgedeploy.targets.openvino.toolkit import quiet_nncf

CALIBRATIONS: Final = ("mean-minmax", "minmax", "percentile", "mse")
"""The calibration methods that NNCF has of ``records.variant.CALIBRATIONS``, its default first."""
TRANSFORMER: Final = "nncf-transformer"
"""The quantizer that is NNCF with what it knows of transformers: SmoothQuant, softmax and sums of attention."""
UNCORRECTED: Final = "nncf-minmax"
"""The quantizer that is NNCF with the extremes over all cases for ranges and without bias correction."""
LOOKED_AT: Final = 16
"""Calibration cases that are compared with the float model."""
MOST_UNEQUAL: Final = 4.0
"""A concatenation's common range may be at most this many times as large as the range of one of its inputs."""
IN_FLOAT: Final = {"LP_TRANSFORMS_MODE": "NO"}
"""Setting that makes OpenVINO compute a quantized model in float: this shows the error of the ranges without that of
this host's int8 kernels. It is internal to OpenVINO's CPU device (2025.4 and 2026.4 have it)."""
BLOCK: Final = 32
"""Number of 4-bit weights that share one scale, if a layer's inputs are a multiple of it; else fewer."""

SMALLEST_BLOCK: Final = 16
"""Inputs that are no multiple of it leave a layer as it is: NNCF's blocks are powers of two that divide them. Its own least
is 32."""

_RECURRENT: Final = ("LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell")
"""Operations whose weights the CPU device takes as constants alone: it does not load them quantized."""

_ON_THE_WAY: Final = ("Convert", "Multiply", "Subtract", "Reshape", "Transpose", "FakeQuantize")


def quantize(
    model: Any,
    request: BuildRequest,
    assignment: Assignment,
    sources: dict[str, tuple[str, ...]],
    skips: Sequence[str] = (),
) -> Any:
    """``model`` with the layers that ``assignment`` gives to int8; nothing else is touched, and no operation in ``skips``
    (:mod:`edgedeploy.reference.skips`).

    A ``quantizer`` or ``calibrator`` of the request is taken alone. Without one NNCF's default is tried first: ranges from
    the mean of the cases' extremes, one range for all inputs of a concatenation. If a calibration case misses the parity
    tolerance with it, two more are tried, and the nearest to the float model is kept:

    - ranges from the extremes over all cases (a detector's rare objects);
    - ranges of their own for the inputs of concatenations that :func:`_unequal` names (an image beside logits).

    NNCF writes its parameters into the file, so that it says which one it is.
    """
    own = _quantized(model.clone(), request, assignment, sources, skips)
    if request.quantizer in (UNCORRECTED, TRANSFORMER) or request.calibrator not in ("", CALIBRATIONS[0]):
        return own
    distance = _distance(model, own, request)
    if distance <= TOLERANCE["int8"]:
        return own
    tried = [(distance, own)]
    whole = _quantized(model.clone(), replace(request, calibrator="minmax"), assignment, sources, skips)
    tried.append((_distance(model, whole, request), whole))
    if apart := _unequal(model, request):
        free = _quantized(model.clone(), request, assignment, sources, (*skips, *apart))
        tried.append((_distance(model, free, request), free))
    return min(tried, key=lambda pair: pair[0])[1]


def _unequal(model: Any, request: BuildRequest) -> list[str]:
    """Concatenations whose common range costs the other readers of an input two bits or more."""
    import openvino as ov

    graph = model.clone()
    inputs = {
        operation.get_friendly_name(): [operation.input_value(index) for index in range(operation.get_input_size())]
        for operation in graph.get_ops()
        if operation.get_type_name() == "Concat" and operation.get_output_element_type(0).is_real()
    }
    if not inputs:
        return []
    values = {_key(value): value for group in inputs.values() for value in group}
    outputs = graph.add_outputs(list(values.values()))
    places = dict(zip(values, range(len(graph.outputs) - len(outputs), len(graph.outputs)), strict=True))
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    extremes = dict.fromkeys(places, (math.inf, -math.inf))
    for feed in itertools.islice(calibration_feeds(request), LOOKED_AT):
        found = list(compiled(feed).values())
        for key, place in places.items():
            low, high = extremes[key]
            extremes[key] = (min(low, float(found[place].min())), max(high, float(found[place].max())))
    unequal = []
    for name, group in inputs.items():
        ranges = [extremes[_key(value)] for value in group]
        whole = max(high for _, high in ranges) - min(low for low, _ in ranges)
        # readers of an input: the concatenation, the output that was added here, and others
        shared = [
            high - low for value, (low, high) in zip(group, ranges, strict=True) if len(value.get_target_inputs()) > 2
        ]
        if any(MOST_UNEQUAL * own < whole for own in shared):
            unequal.append(name)
    return unequal


def _key(value: Any) -> tuple[str, int]:
    return value.get_node().get_friendly_name(), value.get_index()


def _distance(model: Any, narrow: Any, request: BuildRequest) -> float:
    """The largest relative L2 distance of any output in any calibration case; infinite when an output is broken. The models
    run one after the other, and the first one's outputs wait in a file: both in memory take twice as much."""
    import numpy as np

    with tempfile.TemporaryFile() as kept:
        for outputs in _answers(model, request):
            for value in outputs.values():
                np.save(kept, value, allow_pickle=False)
        kept.seek(0)
        return worst_distance(
            ({name: np.load(kept, allow_pickle=False) for name in found}, found) for found in _answers(narrow, request)
        )


def _answers(model: Any, request: BuildRequest) -> Iterator[dict[str, Array]]:
    """Outputs in float, by their places, on the calibration cases that are looked at."""
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **IN_FLOAT})
    for feed in itertools.islice(calibration_feeds(request), LOOKED_AT):
        yield {str(index): value for index, value in enumerate(compiled(feed).values())}


def _quantized(
    model: Any,
    request: BuildRequest,
    assignment: Assignment,
    sources: dict[str, tuple[str, ...]],
    apart: Sequence[str] = (),
) -> Any:
    """Quantize with NNCF, except the operations in ``apart``."""
    nncf = quiet_nncf()
    others = list(apart)
    others += [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in _RECURRENT]
    others += [name for name, names in sources.items() if assignment.of(names, request.precision) != "int8"]
    if request.precision != "int8":  # operations that stand for no layer keep the precision of the model
        others += [op.get_friendly_name() for op in model.get_ops() if _may_narrow(op, sources)]
    with translated("int8 quantization by NNCF", "Search another precision for this architecture"):
        return nncf.quantize(
            model,
            nncf.Dataset(_Cases(request)),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if request.quantizer == TRANSFORMER else None,
            subset_size=CALIBRATION_LIMIT,
            ignored_scope=nncf.IgnoredScope(names=sorted(set(others)), validate=False) if others else None,
            advanced_parameters=_advanced(nncf, request),
        )


def compress(
    model: Any, request: BuildRequest, assignment: Assignment, sources: dict[str, tuple[str, ...]], precision: str
) -> Any:
    """``model`` with the weights of matrix products, and of tables that are looked up in, as ``precision`` stores them,
    where ``assignment`` gives it to them: in 8 bits with a scale per output channel, in 4 bits with a scale and a zero
    point per block. NNCF's scale estimation is left out: of MiniLM it left a mean cosine of 0.03 to the float model, where
    plain rounding leaves 0.97."""
    nncf = quiet_nncf()
    wanted = {name for name, names in sources.items() if assignment.of(names, request.precision) == precision}
    others = [
        operation.get_friendly_name()
        for operation in model.get_ops()
        if operation.get_type_name() not in ("Constant", "Result", "Parameter")
        and (operation.get_friendly_name() not in wanted or operation.get_type_name() not in ("MatMul", "Gather"))
    ]
    options: dict[str, Any] = {"mode": nncf.CompressWeightsMode.INT8_SYM}
    if precision == "int4-weights":
        parameters = nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=SMALLEST_BLOCK
        )
        options = {
            "mode": nncf.CompressWeightsMode.INT4_ASYM,
            "ratio": 1.0,
            "group_size": BLOCK,
            "all_layers": True,
            "backup_mode": nncf.BackupMode.NONE,
            "advanced_parameters": parameters,
        }
    with translated(f"{precision} by NNCF", "Search another precision for this architecture"):
        ignored = nncf.IgnoredScope(names=sorted(set(others)), validate=False)
        return nncf.compress_weights(model, ignored_scope=ignored, **options)


def narrow_nodes(model: Any) -> dict[str, str]:
    """Products with quantized weights, by operation name, found from the operations between constant and product."""
    found = {}
    for operation in model.get_ops():
        if operation.get_type_name() in PRODUCTS:
            precision = _weights_precision(operation.input_value(1).get_node())
            if precision is not None:
                found[operation.get_friendly_name()] = precision
    return found


def check_narrow(request: BuildRequest, wanted: set[str], narrow: dict[str, str]) -> None:
    """Raises ``Unsupported`` when the model's precision asks for quantized layers and none was quantized."""
    if request.precision in NARROW and request.precision in wanted - set(narrow.values()):
        found = "NNCF found nothing in the model that it can quantize"
        if request.precision == "int4-weights":
            found += f": blocks need products whose inputs are a multiple of {SMALLEST_BLOCK}"
        raise Unsupported(f"{request.precision} layers", found, "Search float32 instead")


def _may_narrow(operation: Any, sources: dict[str, tuple[str, ...]]) -> bool:
    kind = operation.get_type_name()
    return operation.get_friendly_name() not in sources and kind not in ("Constant", "Result", "Parameter")


def _weights_precision(node: Any) -> str | None:
    quantized = False
    while node.get_type_name() in _ON_THE_WAY:
        quantized |= node.get_type_name() == "FakeQuantize"
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return None
    kind = node.get_element_type().get_type_name()
    if kind in ("i4", "u4"):
        return "int4-weights"
    return "int8" if quantized or kind in ("i8", "u8") else None


def _advanced(nncf: Any, request: BuildRequest) -> Any:
    """NNCF's parameters for the bits of weights, the quantizer and the calibration method. Its defaults limit the first
    layer to 7 bits, use the mean of the cases' extremes and correct biases."""
    settings: dict[str, Any] = {"overflow_fix": nncf.OverflowFix.ENABLE} if request.weight_bits == 7 else {}
    if request.quantizer == UNCORRECTED:
        settings.update(disable_bias_correction=True, activations_range_estimator_params=_ranges("minmax"))
    elif request.calibrator not in ("", CALIBRATIONS[0]):
        settings["activations_range_estimator_params"] = _ranges(request.calibrator)
    return nncf.AdvancedQuantizationParameters(**settings) if settings else None


def _ranges(calibrator: str) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    ranges = {
        "minmax": RangeEstimatorParametersSet.MINMAX,
        "percentile": RangeEstimatorParametersSet.MEAN_QUANTILE,
        "mse": RangeEstimatorParametersSet.HISTOGRAM,
    }
    return ranges[calibrator]


@dataclass(frozen=True)
class _Cases:
    """Calibration cases that can be iterated repeatedly: NNCF reads them more than once without keeping them."""

    request: BuildRequest

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return calibration_feeds(self.request)
