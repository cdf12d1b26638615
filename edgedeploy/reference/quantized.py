"""Quantized ONNX that every toolchain takes: int8 QuantizeLinear/DequantizeLinear pairs as training left them.

The rules are the strictest of ONNX Runtime, OpenVINO and TensorRT together:

- symmetric int8 with zero point 0, and no other quantization operators;
- weights with one scale per output channel, as int8 constants with a DequantizeLinear;
- float biases without a pair (TensorRT refuses int32 biases, the others quantize them themselves, ONNX Runtime unless
  it has to leave float layers alone: :func:`integer_biases`);
- activations with one scale.

Exceptions for what runtimes were seen to run (ONNX Runtime 1.32, OpenVINO 2026.4):

- With int8 constants and scales per channel, OpenVINO runs a transposed convolution, and every layer that shares a
  scale with it, in float. Weights of transposed convolutions therefore stay float constants with a
  QuantizeLinear/DequantizeLinear pair.
- ONNX Runtime has no integer Gemm with a float output, but it has such a MatMul: linear layers become a MatMul and an
  Add.
- ONNX Runtime converts int8 activations to uint8 for its faster kernels, but only tensors with one reader, and runs a
  layer that mixes both types in float: :func:`unsigned_activations` converts all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import BuildError
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.export import Reference, describe, export_checked
from edgedeploy.reference.external import save

QUANTIZED_EXPORT_TOLERANCE: Final = 0.05
"""Largest relative L2 distance between the trained model and its file. Another order of summation can move a value to
the next quantization step, and later layers carry the difference on: 0 to 0.01 on the models of the tests."""

WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZE: Final = "QuantizeLinear"
DEQUANTIZE: Final = "DequantizeLinear"


def export_quantized(
    model: Any, specs: tuple[TensorSpec, ...], path: Path, *, samples: Iterable[Mapping[str, Array]] = ()
) -> Reference:
    """Export a model of frozen quantizers as :func:`edgedeploy.reference.export.export_reference` exports a float one.

    Raises what that raises, and ``BuildError`` for a graph that breaks the rules of this module.
    """
    return export_checked(model, specs, path, samples, finish=_finish, tolerance=QUANTIZED_EXPORT_TOLERANCE)


def _finish(path: Path) -> Reference:
    import onnx

    model = onnx.load(str(path))
    store_weights(model)
    split_linear(model)
    check_rules(model)
    save(model, path)
    return replace(describe(path, own=True), quantized=True)


def store_weights(model: Any) -> None:
    """Turn quantized constants into int8 initializers, in place.

    Constants of transposed convolutions stay as they are. Where a Transpose follows DequantizeLinear, the constant is
    stored transposed and the Transpose is removed.
    """
    import onnx

    constants = _constants(model)
    for node in list(model.graph.node):
        if node.op_type == QUANTIZE and node.input[0] in constants:
            (pair,) = _readers(model, node)
            if any(reader.op_type == "ConvTranspose" for reader in _readers(model, pair)):
                continue
            values, scale = (_values(constants[name]) for name in node.input[:2])
            steps = onnx.numpy_helper.from_array(_steps(values, scale, _attribute(node, "axis", 1)), node.output[0])
            model.graph.initializer.append(steps)
            constants[node.output[0]] = model.graph.initializer[-1]
            model.graph.node.remove(node)
        elif node.op_type == DEQUANTIZE and node.input[0] in constants:
            readers = _readers(model, node)
            if [reader.op_type for reader in readers] == ["Transpose"]:
                _transpose(node, list(_attribute(readers[0], "perm", ())), constants)
                node.output[0] = readers[0].output[0]
                model.graph.node.remove(readers[0])
    for node in model.graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE) and not constants[node.input[1]].dims:
            node.ClearField("attribute")  # an axis means nothing where there is one scale
    _drop_unused(model)


def split_linear(model: Any) -> None:
    """Write every Gemm with int8 weights as a MatMul and an Add, in place."""
    import onnx

    constants = _constants(model)
    plain: set[str] = set()
    for node in model.graph.node:
        readers = _readers(model, node)
        if node.op_type == DEQUANTIZE and node.input[0] in constants and readers and all(map(_is_plain_gemm, readers)):
            _transpose(node, [1, 0], constants)  # once, however many layers share the weights
            plain.add(node.output[0])
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Gemm" and node.input[1] in plain:
            product = f"{node.output[0]}_product" if len(node.input) > 2 else node.output[0]
            nodes.append(onnx.helper.make_node("MatMul", node.input[:2], [product], name=node.name))
            if len(node.input) > 2:
                name = f"{node.name}_bias"
                nodes.append(onnx.helper.make_node("Add", [product, node.input[2]], node.output, name=name))
        else:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def plain_weights(model: Any) -> None:
    """Put the float values that quantized constants stand for in their place, in place; their pairs go. A float model
    stays as it is."""
    import onnx

    constants = _constants(model)
    for node in list(model.graph.node):
        if node.op_type not in (QUANTIZE, DEQUANTIZE) or node.input[0] not in constants:
            continue
        values, scale = (_values(constants[name]) for name in node.input[:2])
        axis = _attribute(node, "axis", 1)
        found = _steps(values, scale, axis) if node.op_type == QUANTIZE else values * along(scale, axis, values.ndim)
        model.graph.initializer.append(onnx.numpy_helper.from_array(found, node.output[0]))
        constants[node.output[0]] = model.graph.initializer[-1]
        model.graph.node.remove(node)


def unsigned_activations(model: Any) -> None:
    """Move activations from int8 with zero point 0 to uint8 with zero point 128, in place: the same values, bit for bit."""
    import onnx

    constants = _constants(model)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(128, np.uint8), "unsigned_zero_point"))
    quantized = {node.output[0] for node in model.graph.node if _is_activation_pair(node, constants)}
    for node in model.graph.node:
        if node.output[0] in quantized or (node.op_type == DEQUANTIZE and node.input[0] in quantized):
            node.input[2] = "unsigned_zero_point"
    _drop_unused(model)


def integer_biases(model: Any) -> None:
    """Write the biases of integer convolutions as int32 by the scales beside them, in place, as a runtime would."""
    import onnx

    constants = _constants(model)
    dequantized = {node.output[0]: node for node in model.graph.node if node.op_type == DEQUANTIZE}
    nodes = []
    for node in model.graph.node:
        sides = [dequantized[name] for name in node.input[:2] if name in dequantized]
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 2 and len(sides) == 2:
            bias, *scales = (_values(constants[name]) for name in (node.input[2], *(side.input[1] for side in sides)))
            if 1 < scales[1].size < bias.size:  # a grouped transposed convolution has those of a group
                scales[1] = np.tile(scales[1], bias.size // scales[1].size)
            scale = np.broadcast_to(np.float32(scales[0]) * scales[1].astype(np.float32), bias.shape)
            limits = np.iinfo(np.int32)
            whole = np.clip(np.rint(bias / scale.astype(np.float64)), limits.min, limits.max).astype(np.int32)
            name = f"{node.name}_integer_bias"
            own = {f"{name}_steps": whole, f"{name}_scale": scale, f"{name}_zero": np.zeros(bias.shape, np.int32)}
            model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in own.items())
            nodes.append(onnx.helper.make_node(DEQUANTIZE, list(own), [name], name=name, axis=0))
            node.input[2] = name
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model)


def check_rules(model: Any) -> None:
    """Raises ``BuildError`` naming the first node of a quantized model that breaks the rules of this module."""
    constants = _constants(model)
    dequantized = {node.output[0]: node for node in model.graph.node if node.op_type == DEQUANTIZE}
    weights = _weights(model, constants)
    if not weights:
        raise BuildError("a quantized model", "no layer of it has int8 weights", "Search float32 instead")
    for node in model.graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            found = _wrong_pair(node, constants)
        elif node.domain not in ("", "ai.onnx"):
            found = "it is no operator of the standard"
        else:
            found = _wrong_layer(node, dequantized, weights)
        if found:
            raise BuildError(
                f"node {node.name!r} ({node.op_type}) as every int8 toolchain takes it",
                found,
                "Search training = ['ptq'] for this architecture",
            )


def _wrong_pair(node: Any, constants: Mapping[str, Any]) -> str:
    import onnx

    if len(node.input) != 3 or node.input[1] not in constants or node.input[2] not in constants:
        return "its scale or zero point is no constant"
    scale, zero = (_values(constants[name]) for name in node.input[1:])
    if constants[node.input[2]].data_type != onnx.TensorProto.INT8 or zero.any():
        return "its zero point is not an int8 zero"
    if not (scale > 0).all():
        return "a scale is not positive"
    return "an activation has more than one scale" if scale.ndim and _is_activation_pair(node, constants) else ""


def _wrong_layer(node: Any, dequantized: Mapping[str, Any], weights: Iterable[str]) -> str:
    if node.op_type not in WEIGHTED or node.input[1] not in weights:
        return ""
    if node.input[0] not in dequantized:
        return "its weights are int8, its input is not"
    return "its bias is quantized" if len(node.input) > 2 and node.input[2] in dequantized else ""


def _weights(model: Any, constants: Mapping[str, Any]) -> set[str]:
    """Dequantized constants."""
    steps = {node.output[0] for node in model.graph.node if node.op_type == QUANTIZE and node.input[0] in constants}
    steps |= set(constants)
    return {node.output[0] for node in model.graph.node if node.op_type == DEQUANTIZE and node.input[0] in steps}


def _is_activation_pair(node: Any, constants: Mapping[str, Any]) -> bool:
    return node.op_type == QUANTIZE and node.input[0] not in constants


def _is_plain_gemm(node: Any) -> bool:
    """``x W^T + b``, as torch's linear layers are exported."""
    wanted = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    defaults = {**wanted, "transB": 0}
    return node.op_type == "Gemm" and all(_attribute(node, name, defaults[name]) == wanted[name] for name in wanted)


def _readers(model: Any, node: Any) -> list[Any]:
    return [other for other in model.graph.node if node.output[0] in other.input]


def _steps(values: Any, scale: Any, axis: int) -> Array:
    """ONNX's QuantizeLinear to int8 with zero point 0."""
    return np.asarray(np.clip(np.rint(values / along(scale, axis, values.ndim)), -128, 127), np.int8)


def along(scale: Array, axis: int | None, dims: int) -> Array:
    """Scales in a shape that a tensor of ``dims`` dimensions is multiplied with: one for each index along ``axis``, or one
    for all."""
    return scale.reshape([-1 if dim == axis else 1 for dim in range(dims)]) if scale.ndim else scale


def _transpose(node: Any, order: list[int], constants: Mapping[str, Any]) -> None:
    """Transpose the int8 constant that the DequantizeLinear ``node`` reads, and its axis with it."""
    import onnx

    steps = _values(constants[node.input[0]])
    order = order or list(range(steps.ndim))[::-1]
    for attribute in node.attribute:
        if attribute.name == "axis" and constants[node.input[1]].dims:
            attribute.i = order.index(attribute.i)
    constants[node.input[0]].CopyFrom(onnx.numpy_helper.from_array(steps.transpose(order), node.input[0]))


def _constants(model: Any) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _values(tensor: Any) -> Any:
    import onnx

    return onnx.numpy_helper.to_array(tensor)


def _attribute(node: Any, name: str, default: Any) -> Any:
    import onnx

    return next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def _drop_unused(model: Any) -> None:
    """Remove constants that no node reads, and the recorded shapes, which describe the tensors before the change."""
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
