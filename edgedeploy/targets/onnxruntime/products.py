"""Products with constant weights in an ONNX graph: what they multiply with, wherever the constant comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgedeploy.reference.constants import Constants
from edgedeploy.reference.safety_child import outline

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


LAYERS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def constant_product(node: Any, constants: Constants) -> tuple[tuple[Any, ...], Floats, Floats | None] | None:
    """A key that is equal for equal weights, the weights (inputs, outputs), and the bias (outputs,) or None. Returns
    None when the kernel cannot compute ``node``."""
    import onnx

    if node.op_type not in ("MatMul", "Gemm"):
        return None
    weights = constants.get(node.input[1])
    if weights is None or weights.ndim != 2 or weights.dtype != np.float32 or not np.isfinite(weights).all():
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
        bias = _by_columns(constants.get(node.input[2]), weights.shape[1])
        if bias is None:
            return None
        bias = bias * np.float32(options.get("beta", 1.0))
    return (node.input[1], turned, alpha), weights, bias


def _by_columns(bias: Floats | None, outputs: int) -> Floats | None:
    """One number for each output; None for a bias that is computed, or added by rows: a square product has as many."""
    if bias is None or any(size != 1 for size in bias.shape[:-1]) or bias.shape[-1:] not in ((), (1,), (outputs,)):
        return None
    return np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (outputs,)))


def settle_gemms(model: Any) -> None:
    """Put the factors of every Gemm with constant weights into them, in place, and one number for each output into its bias:
    integer kernels take a bias as it is and leave ``beta`` out. Nodes must have unique names."""
    import onnx

    constants, changed = Constants(model), False
    for node in model.graph.node:
        product = constant_product(node, constants) if node.op_type == "Gemm" else None
        if product is None:
            continue
        factors = {item.name: item.f for item in node.attribute if item.name in ("alpha", "beta")}
        _, weights, bias = product
        own = None if bias is None else constants.get(node.input[2])
        if {*factors.values()} <= {1.0} and (own is None or own.shape == (weights.shape[1],)):
            continue
        tensors = {"weights": weights} if bias is None else {"weights": weights, "bias": bias}
        made = onnx.helper.make_node(
            "Gemm", [node.input[0], *(f"{node.name}:{part}" for part in tensors)], list(node.output), name=node.name
        )
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.ascontiguousarray(array), f"{node.name}:{part}")
            for part, array in tensors.items()
        )
        node.CopyFrom(made)
        changed = True
    if changed:
        drop_unused(model)


def no_integers(node: Any, constants: Constants) -> bool:
    """Whether a layer with constant weights has such as no integer kernel computes with: NaN or infinite ones, or a Gemm
    that :func:`settle_gemms` left as it was."""
    weights = constants.get(node.input[1]) if node.op_type in LAYERS else None
    if weights is None:
        return False
    turned = any(item.name == "transA" and item.i for item in node.attribute)
    if node.op_type == "Gemm" and weights.dtype == np.float32 and not turned:
        return constant_product(node, constants) is None
    return not bool(np.isfinite(weights).all())


def inferred(model: Any) -> list[Any]:
    """Inferred types of tensors that the file does not record."""
    import onnx

    known = {value.name for value in model.graph.value_info}
    found = onnx.shape_inference.infer_shapes(outline(model)).graph.value_info  # with its weights it may pass 2 GB
    return [value for value in found if value.name not in known]


def drop_unused(model: Any) -> None:
    """Remove nodes and weights that nothing reads any more, also from the inputs, where older files list weights."""
    wanted = {value.name for value in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted.update(read_by(node))
            nodes.append(node)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    gone = {tensor.name for tensor in model.graph.initializer} - wanted
    inputs = [value for value in model.graph.input if value.name not in gone]
    for field, values in (("node", nodes[::-1]), ("initializer", weights), ("input", inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(copies)


def read_by(node: Any) -> Iterator[str]:
    """Tensors that a node reads, including those that its subgraphs take from outside."""
    yield from node.input
    for item in node.attribute:
        for graph in (item.g, *item.graphs):
            for inner in graph.node:
                yield from read_by(inner)
            yield from (value.name for value in graph.output)
