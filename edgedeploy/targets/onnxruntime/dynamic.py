"""Dynamic int8 for ONNX Runtime: int8 weights with one scale per output channel, activations quantized at each query.

Only matrix products are narrowed, as ``DynamicQuantizeMatMul`` (com.microsoft): one kernel that quantizes its input,
multiplies integers and gives floats. Convolutions would need ``ConvInteger``, which is slower than float32 (one thread of a
Zen 4 with VNNI that other work shared, least of 25 interleaved runs; relative L2 to float32):

    small ViT  float32 14.3 ms | matrix products 7.6 ms, 0.010 | and the convolution 10.9 ms, 0.010
    UNet       float32 11.0 ms | convolutions 13.2 ms          MobileNetV2-like  float32 7.8 ms | convolutions 20.6 ms

Every node and tensor keeps the reference's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgedeploy.records.precision import Assignment
from edgedeploy.records.weightbits import LARGEST_WEIGHT
from edgedeploy.reference.constants import Constants
from edgedeploy.targets.onnxruntime.products import constant_product, drop_unused, inferred

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

PRECISION: Final = "int8-dynamic"
OPERATOR: Final = "DynamicQuantizeMatMul"
DOMAIN: Final = "com.microsoft"


def dynamic_eight_bits(model: Any, assignment: Assignment, *, weight_bits: int) -> None:
    """Quantize, in place, the layers that ``assignment`` gives dynamic int8; only products with a constant matrix can
    be. Nodes must have unique names."""
    import onnx

    largest = LARGEST_WEIGHT[weight_bits]
    constants = Constants(model)
    types = inferred(model)  # inference cannot pass the new nodes later: their operator is not part of ONNX
    written: dict[tuple[Any, ...], list[str]] = {}
    for node in model.graph.node:
        asked = assignment.precisions.get(node.name) == PRECISION and node.name in assignment.weighted
        product = constant_product(node, constants) if asked else None
        if product is None:
            continue
        key, weights, bias = product
        if key not in written:
            values, scales = quantized(weights, largest)
            written[key] = [f"{node.name}:int8", f"{node.name}:scales"]
            tensors = zip(written[key], (values, scales), strict=True)
            model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in tensors)
        inputs = [node.input[0], *written[key]]
        if bias is not None:
            name = f"{node.name}:bias"
            model.graph.initializer.append(onnx.numpy_helper.from_array(bias, name))
            inputs += ["", name]
        node.CopyFrom(onnx.helper.make_node(OPERATOR, inputs, list(node.output), name=node.name, domain=DOMAIN))
    if written:
        drop_unused(model)
        model.graph.value_info.extend(types)
        if DOMAIN not in {entry.domain for entry in model.opset_import}:
            model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def quantized(weights: Floats, largest: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Weights (inputs, outputs) as int8 with one scale per output; symmetric, so that no zero point has to be
    corrected."""
    bounds = np.abs(weights).max(axis=0)
    scales = np.where(bounds > 0, bounds / np.float32(largest), np.float32(1)).astype(np.float32)
    return np.clip(np.rint(weights / scales), -largest, largest).astype(np.int8), scales
