"""Weights only, for ONNX Runtime: 8 or 4 bits in blocks that share a scale, of matrix products and of tables.

Products become ``MatMulNBits`` (com.microsoft), a Gemm with its bias too; its kernel rounds its input to 8 bits on the way
(``accuracy_level`` 4). Tables that Gather alone reads become 8-bit ones with a scale per row in plain ONNX, or 4-bit ones in
``GatherBlockQuantized``. The toolchain's own ``MatMulNBitsQuantizer`` takes no Gemm, which is what its own preparation makes
of a MatMul with a bias, and says nothing: it converted 0 of 73 layers of a ViT-S.

Every node and tensor that stays keeps the reference's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgedeploy.records.precision import Assignment
from edgedeploy.reference.constants import Constants
from edgedeploy.targets.onnxruntime.products import constant_product, drop_unused, inferred

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]

OPERATOR: Final = "MatMulNBits"
DOMAIN: Final = "com.microsoft"
BITS: Final = {"int8-weights": 8, "int4-weights": 4}
TABLE_BITS: Final = {**BITS, "int8-dynamic": 8}
"""Bits of the tables of a model, by its precision."""
BLOCKS: Final = {8: (128, 64, 32, 16), 4: (32, 16)}
"""Numbers of weights that share one scale, the first that divides a product's inputs; else the last, padded. Measured on
MiniLM (docs/reference/large.md): of 8 bits 128 is as near to the float model as 32 and faster, of 4 bits 32 is nearer."""
TABLE_BLOCKS: Final = (64, 32, 16)
"""The same for rows of 4-bit tables. A scale has 4 bytes there too."""
ROUNDED_INPUT: Final = 4
"""``accuracy_level``: inputs are rounded to 8 bits, block by block. Without it the products are computed in float32, slower
than those of a float model."""
SHRINKINGS: Final = tuple(1.0 - 0.05 * step for step in range(8))
"""Ranges of 4-bit blocks that are tried, as shares of the widest: the one of the least square error stays."""
SMALLEST_TABLE: Final = 4096
"""Numbers in a table, at least, that is worth two more tensors."""


def weights_only(model: Any, assignment: Assignment, tables: Mapping[str, int]) -> None:
    """Narrow, in place, the products that ``assignment`` gives a precision of ``BITS``, and the tables that it gives one of
    ``tables``, with their bits. What cannot be narrowed stays: count it. Nodes must have unique names."""
    import onnx

    constants = Constants(model)
    types = inferred(model)  # inference cannot pass the new nodes later: their operators are not part of ONNX
    nodes: list[Any] = []
    changed = False
    written: dict[tuple[Any, ...], list[str]] = {}
    for node in model.graph.node:
        precision = assignment.precisions.get(node.name, "")
        made = None
        if node.op_type == "Gather" and precision in tables:
            made = _table(model, node, tables[precision], written)
        elif precision in BITS and node.name in assignment.weighted:
            product = constant_product(node, constants)
            made = [_product(model, node, product, BITS[precision], written)] if product else None
        elif node.op_type == "Slice" and node.name not in assignment.precisions:  # it depends on no input
            made = _cut(model, node, constants)
        nodes += [node] if made is None else made
        changed |= made is not None
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    if changed:
        drop_unused(model)
        known = {value.name for value in model.graph.value_info}
        model.graph.value_info.extend(value for value in types if value.name not in known)
        if DOMAIN not in {entry.domain for entry in model.opset_import}:
            model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def quantized_blocks(weights: Floats, bits: int, block: int) -> tuple[Bytes, Floats, Bytes]:
    """Weights (outputs, inputs) as whole numbers (outputs, blocks, block), with a scale and a zero point per block, each
    (outputs, blocks): ``weight = (number - zero point) * scale``.

    8 bits are symmetric around 128. 4 bits have zero points of their own, and of several ranges the one of the least
    square error: a range that cuts off its extremes is nearer to most blocks of 16 levels.
    """
    outputs, inputs = weights.shape
    count = -(-inputs // block)
    rows = np.pad(weights, ((0, 0), (0, count * block - inputs))).reshape(outputs, count, block)
    if bits == 8:
        bounds = np.abs(rows).max(-1, keepdims=True)
        scales = np.where(bounds > 0, bounds / np.float32(127), np.float32(1)).astype(np.float32)
        zeros = np.full(scales.shape, 128, np.uint8)
    else:
        scales, zeros = _nearest_ranges(rows, 2**bits - 1)
    return _levels(rows, scales, zeros, 2**bits - 1), scales[..., 0], zeros[..., 0]


def _nearest_ranges(rows: Floats, largest: int) -> tuple[Floats, Bytes]:
    low, high = np.minimum(rows.min(-1, keepdims=True), 0), np.maximum(rows.max(-1, keepdims=True), 0)
    least = np.full(low.shape, np.inf, np.float32)
    scales, zeros = np.ones(low.shape, np.float32), np.zeros(low.shape, np.uint8)
    for share in SHRINKINGS:
        scale = ((high - low) * np.float32(share / largest)).astype(np.float32)
        scale = np.where(scale > 0, scale, np.float32(1))
        zero = np.clip(np.rint(-low * np.float32(share) / scale), 0, largest).astype(np.uint8)
        close = (_levels(rows, scale, zero, largest).astype(np.float32) - zero) * scale
        error = np.square(close - rows).sum(-1, keepdims=True)
        better = error < least
        least = np.where(better, error, least)
        scales, zeros = np.where(better, scale, scales), np.where(better, zero, zeros)
    return scales, zeros


def _levels(rows: Floats, scales: Floats, zeros: Bytes, largest: int) -> Bytes:
    levels: Bytes = np.clip(np.rint(rows / scales) + zeros, 0, largest).astype(np.uint8)
    return levels


def _packed(values: Bytes, bits: int) -> Bytes:
    """Two 4-bit numbers of the last axis in a byte, the first one in its lower half; an odd one is filled up."""
    if bits == 8:
        return values
    even = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, values.shape[-1] % 2)])
    packed: Bytes = even[..., 0::2] | (even[..., 1::2] << np.uint8(4))
    return packed


def _product(model: Any, node: Any, product: Any, bits: int, written: dict[tuple[Any, ...], list[str]]) -> Any:
    import onnx

    key, weights, bias = product
    inputs, outputs = weights.shape
    block = next((size for size in BLOCKS[bits] if inputs % size == 0), BLOCKS[bits][-1])
    if (*key, bits) not in written:
        values, scales, zeros = quantized_blocks(np.ascontiguousarray(weights.T), bits, block)
        tensors = {"weights": _packed(values, bits), "scales": scales.reshape(-1)}
        if bits == 4:  # 128 is what 8 bits have where nothing is said
            tensors["zeros"] = _packed(zeros, bits).reshape(-1)
        written[*key, bits] = _added(model, node.name, tensors)
    names = [node.input[0], *written[*key, bits]]
    if bias is not None:
        names += [""] * (5 - len(names)) + _added(model, node.name, {"bias": bias})
    shape = {"K": inputs, "N": outputs, "bits": bits, "block_size": block, "accuracy_level": ROUNDED_INPUT}
    return onnx.helper.make_node(OPERATOR, names, list(node.output), name=node.name, domain=DOMAIN, **shape)


def _table(model: Any, node: Any, bits: int, written: dict[tuple[Any, ...], list[str]]) -> list[Any] | None:
    """Rows that are looked up by an index: (rows, width) float32 initializers along axis 0 that Gather alone reads."""
    import onnx

    axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
    held = next((tensor for tensor in model.graph.initializer if tensor.name == node.input[0]), None)
    if axis != 0 or held is None or len(held.dims) != 2 or held.data_type != onnx.TensorProto.FLOAT:
        return None
    readers = {other.op_type for other in model.graph.node if held.name in other.input}
    if readers - {"Gather"} or np.prod(held.dims) < SMALLEST_TABLE or held.dims[1] % TABLE_BLOCKS[-1]:
        return None
    key = (held.name, "table", bits)
    values = onnx.numpy_helper.to_array(held)
    return (
        _byte_rows(model, node, values, key, written)
        if bits == 8
        else _four_bit_rows(model, node, values, key, written)
    )


def _cut(model: Any, node: Any, constants: Constants) -> list[Any] | None:
    """No node: the part of a constant that is read (places of a sentence) instead of the whole of it."""
    import onnx

    if any(value.name == node.output[0] for value in model.graph.output):
        return None
    part = constants.get(node.output[0])
    if part is None:
        return None
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(part), node.output[0]))
    return []


def _byte_rows(model: Any, node: Any, values: Floats, key: Any, written: dict[tuple[Any, ...], list[str]]) -> list[Any]:
    """In ONNX's own operators, which every release has: rows and their scales are looked up, then multiplied."""
    import onnx

    if key not in written:
        bounds = np.abs(values).max(-1, keepdims=True)
        scales = np.where(bounds > 0, bounds / np.float32(127), np.float32(1)).astype(np.float32)
        tensors = {"rows": np.rint(values / scales).astype(np.int8), "scales": scales}
        written[key] = _added(model, node.name, tensors)
    rows, factors = written[key]
    name, output = node.name, node.output[0]
    make = onnx.helper.make_node
    return [
        make("Gather", [rows, node.input[1]], [f"{output}:rows"], name=f"{name}/rows"),
        make("Gather", [factors, node.input[1]], [f"{output}:scales"], name=f"{name}/scales"),
        make("Cast", [f"{output}:rows"], [f"{output}:wide"], name=f"{name}/wide", to=onnx.TensorProto.FLOAT),
        make("Mul", [f"{output}:wide", f"{output}:scales"], [output], name=name),
    ]


def _four_bit_rows(
    model: Any, node: Any, values: Floats, key: Any, written: dict[tuple[Any, ...], list[str]]
) -> list[Any]:
    import onnx

    block = next(size for size in TABLE_BLOCKS if values.shape[1] % size == 0)
    if key not in written:
        numbers, scales, zeros = quantized_blocks(values, 4, block)
        rows = _packed(numbers.reshape(values.shape), 4)
        tensors = {"rows": rows, "scales": scales, "zeros": _packed(zeros, 4)}
        written[key] = _added(model, node.name, tensors)
    rows_name, scales_name, zeros_name = written[key]
    inputs = [rows_name, node.input[1], scales_name, zeros_name]
    shape = {"gather_axis": 0, "quantize_axis": 1, "block_size": block, "bits": 4}
    made = onnx.helper.make_node(
        "GatherBlockQuantized", inputs, list(node.output), name=node.name, domain=DOMAIN, **shape
    )
    return [made]


def _added(model: Any, node: str, tensors: dict[str, Any]) -> list[str]:
    import onnx

    names = [f"{node}:{part}" for part in tensors]
    arrays = zip(tensors.values(), names, strict=True)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for array, name in arrays
    )
    return names
