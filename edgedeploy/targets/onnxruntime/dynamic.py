"""Dynamic int8 for ONNX Runtime: int8 weights with one scale per output channel, activations quantized at each query.

Only matrix products are narrowed, as ``DynamicQuantizeMatMul`` (com.microsoft): one kernel that quantizes its input,
multiplies integers and gives floats. Convolutions would need ``ConvInteger``, which is slower than float32 (one thread of a
Zen 4 with VNNI that other work shared, least of 25 interleaved runs; relative L2 to float32):

    small ViT  float32 14.3 ms | matrix products 7.6 ms, 0.010 | and the convolution 10.9 ms, 0.010
    UNet       float32 11.0 ms | convolutions 13.2 ms          MobileNetV2-like  float32 7.8 ms | convolutions 20.6 ms

Every node and tensor keeps the reference's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgedeploy.records.precision import Assignment
from edgedeploy.records.weightbits import LARGEST_WEIGHT
from edgedeploy.reference.safety_child import outline

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
    constants = _Constants(model)
    types = _inferred(model)  # inference cannot pass the new nodes later: their operator is not part of ONNX
    written: dict[tuple[Any, ...], list[str]] = {}
    for node in model.graph.node:
        asked = assignment.precisions.get(node.name) == PRECISION and node.name in assignment.weighted
        product = _product(node, constants) if asked else None
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
        _drop_unused(model)
        model.graph.value_info.extend(types)
        if DOMAIN not in {entry.domain for entry in model.opset_import}:
            model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def quantized(weights: Floats, largest: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Weights (inputs, outputs) as int8 with one scale per output; symmetric, so that no zero point has to be
    corrected."""
    bounds = np.abs(weights).max(axis=0)
    scales = np.where(bounds > 0, bounds / np.float32(largest), np.float32(1)).astype(np.float32)
    return np.clip(np.rint(weights / scales), -largest, largest).astype(np.int8), scales


def _product(node: Any, constants: _Constants) -> tuple[tuple[Any, ...], Floats, Floats | None] | None:
    """A key that is equal for equal weights, the weights (inputs, outputs), and the bias (outputs,) or None. Returns
    None when the kernel cannot compute ``node``."""
    import onnx

    if node.op_type not in ("MatMul", "Gemm"):
        return None
    weights = constants.get(node.input[1])
    if weights is None or weights.ndim != 2 or weights.dtype != np.float32:
        return None
    if node.op_type == "MatMul":
        return (node.input[1],), weights, None
    options = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if options.get("transA"):
        return None
    turned, alpha = bool(options.get("transB")), options.get("alpha", 1.0)
    weights = np.ascontiguousarray(weights.T if turned else weights) * np.float32(alpha)
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = constants.get(node.input[2])
        if bias is None or bias.size != weights.shape[1]:  # added by rows, or computed
            return None
        bias = bias.reshape(-1) * np.float32(options.get("beta", 1.0))
    return (node.input[1], turned, alpha), weights, bias


class _Constants:
    """Values of tensors that depend on no input: initializers, and results of nodes on constants."""

    def __init__(self, model: Any) -> None:
        self._held = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {output: node for node in model.graph.node for output in node.output if output}
        self._opsets = list(model.opset_import)

    def get(self, name: str) -> Floats | None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        if name in self._held:
            value: Floats = onnx.numpy_helper.to_array(self._held[name])
            return value
        nodes: dict[str, Any] = {}
        if not self._collect(name, nodes):
            return None
        read = {tensor for node in nodes.values() for tensor in node.input}
        held = [tensor for tensor in self._held.values() if tensor.name in read]
        graph = onnx.helper.make_graph(list(nodes.values()), "constant", [], [onnx.ValueInfoProto(name=name)], held)
        (value,) = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=self._opsets)).run(None, {})
        return value

    def _collect(self, name: str, nodes: dict[str, Any]) -> bool:
        """Collect the nodes that compute tensor ``name`` in topological order. Returns whether it depends on constants
        only."""
        if not name or name in self._held:
            return True
        node = self._producers.get(name)
        if node is None:
            return False
        if node.name not in nodes:
            if not all(self._collect(before, nodes) for before in node.input):
                return False
            nodes[node.name] = node
        return True


def _inferred(model: Any) -> list[Any]:
    """Inferred types of tensors that the file does not record."""
    import onnx

    known = {value.name for value in model.graph.value_info}
    found = onnx.shape_inference.infer_shapes(outline(model)).graph.value_info  # with its weights it may pass 2 GB
    return [value for value in found if value.name not in known]


def _drop_unused(model: Any) -> None:
    """Remove nodes and weights that nothing reads any more, also from the inputs, where older files list weights."""
    wanted = {value.name for value in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted.update(_read(node))
            nodes.append(node)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    gone = {tensor.name for tensor in model.graph.initializer} - wanted
    inputs = [value for value in model.graph.input if value.name not in gone]
    for field, values in (("node", nodes[::-1]), ("initializer", weights), ("input", inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(copies)


def _read(node: Any) -> Iterator[str]:
    """Tensors that a node reads, including those that its subgraphs take from outside."""
    yield from node.input
    for item in node.attribute:
        for graph in (item.g, *item.graphs):
            for inner in graph.node:
                yield from _read(inner)
            yield from (value.name for value in graph.output)
