"""SmoothQuant for ONNX Runtime's static int8: outliers of activations move into weights before ranges are chosen.

A transformer has a few channels whose activations are tens of times as large as the others'. One range for the whole
tensor then leaves the others a few steps. Each channel ``j`` that products read is divided by ``s_j`` and the products'
weights are multiplied by it, which changes nothing in float:

    s_j = sqrt(max |x_j| / max |w_j|)        (Xiao et al., SmoothQuant, 2023, equation 4 with alpha = 0.5)

The division goes into the scale and shift of a LayerNormalization that nothing else reads, else into a Mul. What lies
between the products stays float: ranges for sums and norms would see the outliers again. On MiniLM that is most of what is
gained (docs/reference/large.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgedeploy.interfaces.task import Array
from edgedeploy.reference.export import open_onnx
from edgedeploy.targets.onnxruntime.products import read_by

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

PRODUCTS_ALONE: Final = "onnxruntime-products"
"""The quantizer that narrows products and nothing else."""
SMOOTH: Final = "onnxruntime-smooth"
"""The same, with smoothed inputs."""
PRODUCTS: Final = ("MatMul", "Gemm")
OPERATORS: Final = ("Conv", "ConvTranspose", *PRODUCTS)
"""What is quantized."""


def smooth(model: Any, narrow: Collection[str], feeds: Iterable[Mapping[str, Array]], scratch: Path) -> list[str]:
    """Smooth, in place, what the products ``narrow`` of ``model`` read, by the largest values in ``feeds``: one case at a
    time, and one number per channel is kept. ``scratch`` is a file that is written and removed. Returns the names of the
    nodes that were added."""
    groups = _groups(model, narrow)
    largest = _largest(model, list(groups), feeds, scratch)
    added = []
    for tensor, products in groups.items():
        if tensor not in largest:
            continue
        rows = [_by_inputs(model, node) for node in products]
        of_weights = np.max([np.abs(values).max(axis=1) for values in rows], axis=0)
        if of_weights.shape != largest[tensor].shape:
            continue
        known = (of_weights > 0) & (largest[tensor] > 0)
        ratio = np.divide(largest[tensor], of_weights, out=np.ones_like(of_weights), where=known)
        by = np.sqrt(ratio).astype(np.float32)
        added += _divide(model, tensor, products, by)
        for node, values in zip(products, rows, strict=True):
            _replace_weights(model, node, values * by[:, None])
    return added


def _groups(model: Any, narrow: Collection[str]) -> dict[str, list[Any]]:
    """By the tensor that they read, the products with a constant matrix of their own."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.name not in narrow or node.op_type not in PRODUCTS or _option(node, "transA"):
            continue
        if node.input[1] in held and len(held[node.input[1]].dims) == 2:
            found.setdefault(node.input[0], []).append(node)
    return found


def _largest(model: Any, tensors: list[str], feeds: Iterable[Mapping[str, Array]], scratch: Path) -> dict[str, Floats]:
    """Largest absolute value of each channel (the last axis) over all ``feeds``."""
    import onnx

    given = {value.name for value in model.graph.input}
    wanted = [name for name in tensors if name not in given]
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    onnx.save(copy, str(scratch))
    session = open_onnx(scratch, threads=1)
    scratch.unlink()
    found: dict[str, Floats] = {}
    for feed in feeds:
        ran = session.run(wanted, dict(feed)) if wanted else []  # no names would mean all outputs
        values = dict(zip(wanted, ran, strict=True))
        for name in tensors:
            value = np.asarray(values.get(name, feed.get(name)))
            bounds = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            found[name] = np.maximum(found.get(name, bounds), bounds)
    return found


def _divide(model: Any, tensor: str, products: list[Any], by: Floats) -> list[str]:
    """Divide what ``products`` read by ``by``. Returns the name of the node that does it, if one was added."""
    import onnx

    held = {item.name: item for item in model.graph.initializer}
    place, maker = next(((i, node) for i, node in enumerate(model.graph.node) if tensor in node.output), (-1, None))
    readers = [node for node in model.graph.node if tensor in read_by(node)]
    alone = len(readers) == len(products) and tensor not in {value.name for value in model.graph.output}
    own = maker is not None and maker.op_type == "LayerNormalization" and all(name in held for name in maker.input[1:])
    if maker is not None and alone and own:
        for index, name in enumerate(maker.input[1:], 1):
            values = onnx.numpy_helper.to_array(held[name]) / by
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, f"{maker.name}:smooth{index}"))
            maker.input[index] = f"{maker.name}:smooth{index}"
        return []
    name = f"{tensor}/smooth"
    model.graph.initializer.append(onnx.numpy_helper.from_array(1 / by, f"{name}:by"))
    node = onnx.helper.make_node("Mul", [tensor, f"{name}:by"], [f"{tensor}:smooth"], name=name)
    for product in products:
        product.input[0] = node.output[0]
    model.graph.node.insert(place + 1, node)
    return [name]


def _by_inputs(model: Any, node: Any) -> Floats:
    """Weights (inputs, outputs)."""
    import onnx

    held = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    values: Floats = onnx.numpy_helper.to_array(held)
    return values.T if _option(node, "transB") else values


def _replace_weights(model: Any, node: Any, values: Floats) -> None:
    import onnx

    name = f"{node.name}:smooth"
    stored = np.ascontiguousarray(values.T if _option(node, "transB") else values)
    model.graph.initializer.append(onnx.numpy_helper.from_array(stored, name))
    node.input[1] = name


def _option(node: Any, name: str) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), 0)
