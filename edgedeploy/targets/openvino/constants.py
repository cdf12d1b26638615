"""Weights in half the bytes, where that changes no answer.

- Under the hint ``bf16`` the CPU device rounds the weights of products to bfloat16 when it loads them; they are stored
  rounded. The outputs are equal bit for bit (a UNet, 2026.4 on AVX512-BF16), and the file is half as large.
- Weights that are float16 values already, as those of a model trained or published in float16, are stored as such.

float16 would not do for all: of the 168,144 weights of a trained UNet in bfloat16, 41 are too small for it. Biases, scales
and ranges stay float32: the two layers that a narrow constant takes in ``model.xml`` are larger than what it saves there.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

WORTHWHILE: Final = 512
"""Bytes of the smallest constant that is narrowed: the layers that this adds to ``model.xml`` take half of it."""
PRODUCTS: Final = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
)
_MOVES: Final = ("Reshape", "Transpose")


def narrow_weights(model: Any, hint: str) -> None:
    """Store, in place, the float32 weights of products as what the device computes with under the precision ``hint``, or
    as float16 where they are nothing more."""
    from openvino import opset13 as operators

    for constant in _weights(model):
        values = constant.data
        narrow = _stored(values, hint)
        if narrow is None:
            continue
        readers = constant.output(0).get_target_inputs()
        widened = operators.convert(narrow, "f32").output(0)
        for reader in readers:
            reader.replace_source_output(widened)


def rounded_to_bfloat16(values: Floats) -> Floats:
    """The nearest bfloat16 values, to even between two, as float32. Finite values only."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)).view(np.float32)


def _stored(values: Floats, hint: str) -> Any:
    """The constant that is stored for these weights; None where they stay."""
    import openvino as ov
    from openvino import opset13 as operators

    if not np.isfinite(values).all():
        return None
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if np.array_equal(halves.astype(np.float32), values):
        return operators.constant(halves)
    rounded = rounded_to_bfloat16(values)
    return operators.constant(rounded, dtype=ov.Type.bf16) if hint == "bf16" and np.isfinite(rounded).all() else None


def _weights(model: Any) -> list[Any]:
    """Large float32 constants that products alone read."""
    found: dict[str, Any] = {}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in PRODUCTS:
            node = operation.input_value(1).get_node()
            while node.get_type_name() in _MOVES:
                node = node.input_value(0).get_node()
            if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "f32":
                found[str(node.get_name())] = node
    return [node for node in found.values() if node.get_byte_size() >= WORTHWHILE and _feeds_products(node)]


def _feeds_products(node: Any) -> bool:
    readers = [target.get_node() for target in node.output(0).get_target_inputs()]
    return all(
        reader.get_type_name() in PRODUCTS or (reader.get_type_name() in _MOVES and _feeds_products(reader))
        for reader in readers
    )
