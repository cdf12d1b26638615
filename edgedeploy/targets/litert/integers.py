"""What the converter leaves undone in a file whose scales were learned, done on its flatbuffer.

- It takes the pairs at inputs and outputs away, so that these are int8. Files here speak float32 unless asked otherwise:
  :func:`float_edges` puts the operators back that convert.
- It turns the weights of transposed convolutions round before it looks for their pairs, and leaves these layers in
  float: :func:`narrow_transposed` makes them integer. The numbers are the trained ones, or the layer stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.task import Array
from edgedeploy.reference.weights import numbers, same

if TYPE_CHECKING:
    from edgedeploy.targets.litert.trained import Scales, Weights

NEAR: Final = 1e-3
"""How far, in steps, trained weights may lie from whole numbers in the file: float32 rounding of their product."""


def finished(converted: bytes, scales: Scales, *, integer_io: bool) -> bytes:
    """The converter's file with all that follows done. Raises what :func:`check_scales` and
    :func:`check_weights` raise."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(converted))
    narrow_transposed(model, scales.weights)
    check_scales(model, scales)
    check_weights(model, scales.weights)
    if not integer_io:
        float_edges(model)
    empty_unread(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def float_edges(model: Any) -> None:
    """Give int8 inputs and outputs of ``model`` float tensors of the same name before and behind them, in place."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    signature = model.signatureDefs[0]
    first: list[Any] = []
    for place, index in enumerate(graph.inputs):
        if _is_int8(graph.tensors[index]):
            outside = _float_twin(graph, int(index))
            first.append(_operator(model, schema.BuiltinOperator.QUANTIZE, [outside], [int(index)]))
            graph.inputs[place] = outside
            _rename(signature.inputs, int(index), outside)
    last: list[Any] = []
    for place, index in enumerate(graph.outputs):
        if _is_int8(graph.tensors[index]):
            outside = _float_twin(graph, int(index))
            last.append(_operator(model, schema.BuiltinOperator.DEQUANTIZE, [int(index)], [outside]))
            graph.outputs[place] = outside
    _rename_outputs(signature.outputs, last)
    graph.operators = [*first, *graph.operators, *last]


def narrow_transposed(model: Any, weights: Sequence[Weights]) -> None:
    """Make transposed convolutions between int8 tensors integer, in place, where their weights are among ``weights``."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    kinds = schema.BuiltinOperator
    for layer in list(graph.operators):
        if codes[layer.opcodeIndex] != kinds.TRANSPOSE_CONV:
            continue
        before = _one(op for op in graph.operators if layer.inputs[2] in op.outputs)
        behind = _one(op for op in graph.operators if layer.outputs[0] in op.inputs)
        held = _constant(model, int(layer.inputs[1]))
        if before is None or behind is None or held is None or layer.outputs[0] in graph.outputs:
            continue
        if codes[before.opcodeIndex] != kinds.DEQUANTIZE or codes[behind.opcodeIndex] != kinds.QUANTIZE:
            continue
        biased = len(layer.inputs) > 3 and layer.inputs[3] >= 0
        bias = _constant(model, int(layer.inputs[3])) if biased else None
        found = _steps(held, weights)
        if found is None or (biased and bias is None):
            continue
        steps, scale = found
        given = float(graph.tensors[before.inputs[0]].quantization.scale[0])
        layer.inputs = [int(index) for index in layer.inputs]
        layer.inputs[1] = _add_constant(model, steps, scale, schema.TensorType.INT8)
        layer.inputs[2] = int(before.inputs[0])
        if bias is not None:
            units = (scale.astype(np.float64) * given).astype(np.float32)
            whole = np.rint(bias.astype(np.float64) / units)
            limits = np.iinfo(np.int32)
            layer.inputs[3] = _add_constant(
                model, np.clip(whole, limits.min, limits.max).astype(np.int32), units, schema.TensorType.INT32
            )
        layer.outputs = [int(behind.outputs[0])]
        code = model.operatorCodes[layer.opcodeIndex]
        code.version = max(int(code.version), 3 if biased else 2)  # the first with int8, and with a bias
        graph.operators.remove(behind)
        if not any(before.outputs[0] in op.inputs for op in graph.operators) and before.outputs[0] not in graph.outputs:
            graph.operators.remove(before)


def empty_unread(model: Any) -> None:
    """Take the contents of constants that nobody reads out of the file, in place; tensors keep their numbers."""
    graph = model.subgraphs[0]
    read = {int(index) for operator in graph.operators for index in operator.inputs if index >= 0}
    read |= {int(index) for index in (*graph.inputs, *graph.outputs)}
    kept = {graph.tensors[index].buffer for index in read} | {entry.buffer for entry in model.metadata or ()}
    for tensor in graph.tensors:
        if tensor.buffer not in kept:
            model.buffers[tensor.buffer].data = None


def check_scales(model: Any, scales: Scales) -> None:
    """Every int8 activation of ``model`` has a scale that was learned or calibrated. Raises ``BuildError``."""
    graph = model.subgraphs[0]
    known = [*((scale, 0) for scale in scales.learned), *scales.calibrated]
    made = {int(index) for operator in graph.operators for index in operator.outputs} | set(map(int, graph.inputs))
    for index in sorted(made):
        tensor = graph.tensors[index]
        if not _is_int8(tensor):
            continue
        scale, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        if not any(zero == own_zero and abs(scale - own) <= 1e-6 * own for own, own_zero in known):
            raise BuildError(
                "a LiteRT file with the scales that training has learned",
                f"the converter gave a tensor the scale {scale:g} and the zero point {zero}, which nobody learned",
                "Search training = ['ptq'] for LiteRT",
            )


def check_weights(model: Any, weights: Sequence[Weights]) -> None:
    """Every layer with int8 weights has those that training gave it: of a layer that stays in float between integer ones the
    converter makes an integer layer by itself. Raises ``Unsupported``."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    kinds = schema.BuiltinOperator
    layers = (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED, kinds.TRANSPOSE_CONV)
    trained = [numbers(own.steps) for own in weights]
    for operator in graph.operators:
        if codes[operator.opcodeIndex] not in layers:
            continue
        tensor = graph.tensors[operator.inputs[1]]
        data = model.buffers[tensor.buffer].data
        if not _is_int8(tensor) or data is None or not len(data):
            continue
        held = numbers(np.frombuffer(bytes(bytearray(data)), np.int8))
        if not any(np.array_equal(held, own) for own in trained):
            shape = "x".join(str(int(size)) for size in tensor.shape)
            raise Unsupported(
                "a layer in float32 between layers that are trained to be int8",
                f"LiteRT's converter makes the layer with {shape} weights int8 by itself",
                "Search such a plan for other targets, or training = ['ptq'] for LiteRT",
            )


def _steps(held: Array, weights: Sequence[Weights]) -> tuple[Array, Array] | None:
    """The trained steps in the file's order of dimensions, (out, height, width, in), with a scale per output channel; None
    where no trained layer has these weights."""
    for own in weights:
        if not same(numbers(own.values), numbers(held)):
            continue
        scale = np.broadcast_to(np.asarray(own.scale, np.float32).reshape(-1), held.shape[:1])
        exact = held.astype(np.float64) / scale.reshape(-1, *[1] * (held.ndim - 1))
        whole = np.rint(exact)
        if np.abs(exact - whole).max() <= NEAR and np.abs(whole).max() <= 128:
            return whole.astype(np.int8), np.array(scale)
    return None


def _one(operators: Any) -> Any:
    """The only one of them, else None."""
    found = list(operators)
    return found[0] if len(found) == 1 else None


def _is_int8(tensor: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    return bool(tensor.type == schema.TensorType.INT8)


def _float_twin(graph: Any, index: int) -> int:
    """A float tensor beside an int8 one, which hands over its name."""
    from ai_edge_litert import schema_py_generated as schema

    inside = graph.tensors[index]
    twin = schema.TensorT()
    twin.shape, twin.shapeSignature, twin.hasRank = inside.shape, inside.shapeSignature, inside.hasRank
    twin.type, twin.buffer, twin.name = schema.TensorType.FLOAT32, 0, inside.name
    inside.name = (inside.name or b"") + b"_int8"
    graph.tensors.append(twin)
    return len(graph.tensors) - 1


def _operator(model: Any, code: int, inputs: list[int], outputs: list[int]) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    codes = [max(item.builtinCode, item.deprecatedBuiltinCode) for item in model.operatorCodes]
    if code not in codes:
        added = schema.OperatorCodeT()
        added.builtinCode = added.deprecatedBuiltinCode = code
        added.version = 2  # the first one that reads and writes int8
        model.operatorCodes.append(added)
        codes.append(code)
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = codes.index(code), inputs, outputs
    return made


def _rename(entries: Any, before: int, after: int) -> None:
    for entry in entries:
        if entry.tensorIndex == before:
            entry.tensorIndex = after


def _rename_outputs(entries: Any, operators: Sequence[Any]) -> None:
    for operator in operators:
        _rename(entries, operator.inputs[0], operator.outputs[0])


def _constant(model: Any, index: int) -> Array | None:
    """The values of a float constant; None for any other tensor."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = model.subgraphs[0].tensors[index]
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
        return None
    return np.frombuffer(bytes(bytearray(data)), np.float32).reshape([int(size) for size in tensor.shape])


def _add_constant(model: Any, values: Array, scale: Array, kind: int) -> int:
    """A new constant with a scale per index of its first dimension. What it stands for is dropped with its last reader."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = list(values.shape), kind, len(model.buffers) - 1
    tensor.name = f"narrowed{tensor.buffer}".encode()
    tensor.hasRank = True
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = scale.astype(np.float32)
    tensor.quantization.zeroPoint = np.zeros(len(scale), np.int64)
    tensor.quantization.quantizedDimension = 0
    graph = model.subgraphs[0]
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
