"""The float weights of a model and the int8 grid that each channel was rounded to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.diagnose.audit.subject import Subject
from edgedeploy.reference.translate import translated

Floats = npt.NDArray[np.float64]

CELL: Final = 0.5 + 1e-3
"""How far a weight may lie from its code, in steps: half a step, and what float32 loses."""
LAYERS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SMALLEST: Final = 32
"""Weights of a layer below which nothing is said of it."""
LEVELS: Final = {"max/127": 127.0, "max/127.5": 127.5, "max/128": 128.0, "max/63": 63.0}
"""Grids that toolchains use where the artifact's own cannot be read: how many steps the largest weight of a channel
is."""


@dataclass(frozen=True)
class Grid:
    """Weights of one layer in steps of its channel's scale, (channels, weights of a channel). ``source`` says where
    the scales are from, ``narrow`` that every float weight is a value of float16 or bfloat16."""

    layer: str
    steps: Floats
    source: str
    narrow: bool = False

    @property
    def codes(self) -> Floats:
        return np.rint(self.steps)


def grids_of(subject: Subject) -> tuple[list[Grid], list[str]]:
    """The grids of an artifact, and the layers of int8 weights whose float weights were not found. Of an artifact
    that is no ONNX file the grids are those of :data:`LEVELS`, one after the other, for every layer."""
    floats = _float_weights(subject.reference)
    if subject.artifact.entry.endswith(".onnx"):
        return _read(subject.folder / subject.artifact.entry, floats)
    found = [
        Grid(name, weights * levels / largest[:, None], word, _is_narrow(weights))
        for word, levels in LEVELS.items()
        for name, weights in floats.items()
        if (largest := np.abs(weights).max(axis=1)).all()
    ]
    return found, []


def _read(path: Path, floats: dict[str, Floats]) -> tuple[list[Grid], list[str]]:
    """Each int8 constant with the only float weights that lie in its cells: names and layouts change while a file is
    built, numbers do not."""
    import onnx

    model = onnx.load(str(path))
    found, lost = [], []
    left = dict(floats)
    for name, codes, scales in _int8_constants(model):
        matches = ((own, _in_cells(weights, codes, scales)) for own, weights in left.items())
        match = next(((own, steps) for own, steps in matches if steps is not None), None)
        if match is None:
            lost.append(name)
            continue
        narrow = _is_narrow(left.pop(match[0]))
        found.append(Grid(match[0], match[1], "the artifact", narrow))
    return found, lost


def _int8_constants(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, codes (channels, rest) and scales (channels) of int8 weights; of MatMul, whose channels are columns,
    turned."""
    from onnx import TensorProto, helper, numpy_helper

    held = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        item = held.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if item is None or item.data_type != TensorProto.INT8 or len(item.dims) < 2:
            continue
        codes, scales = numpy_helper.to_array(item), numpy_helper.to_array(held[node.input[1]]).reshape(-1)
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        axis = int(given.get("axis", 1)) % codes.ndim if scales.size > 1 else 0
        codes = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.float64)
        yield node.output[0], codes, np.resize(scales.astype(np.float64), len(codes))


def _in_cells(weights: Floats, codes: Floats, scales: Floats) -> Floats | None:
    """The float weights in steps, if each lies in the cell of its code."""
    if weights.shape != codes.shape:
        return None
    steps = weights / np.maximum(scales, np.finfo(np.float64).tiny)[:, None]
    near = np.abs(steps - codes) <= CELL
    return steps if bool((near | (np.abs(codes) >= np.abs(codes).max())).all()) else None


def _is_narrow(weights: Floats) -> bool:
    single = weights.astype(np.float32)
    with np.errstate(over="ignore"):
        half = np.array_equal(single.astype(np.float16).astype(np.float32), single)
    return half or not np.any(single.view(np.uint32) & 0xFFFF)


def folded(reference: Path) -> Any:
    """The ONNX model as it is before quantization: batch norms are in the weights."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory(prefix="edgedeploy-") as place, translated("read the float weights", "Audit another model"):
        path = Path(place) / "folded.onnx"
        quant_pre_process(str(reference), str(path), skip_symbolic_shape=True)
        return onnx.load(str(path))


def round_weights(model: Any, path: Path) -> None:
    """Write the model with the weights of its layers rounded to 127 steps a channel."""
    import onnx
    from onnx import numpy_helper

    held = {item.name: item for item in model.graph.initializer}
    for name, axis in {name: axis for _, name, axis in _weighted(model)}.items():
        weights = numpy_helper.to_array(held[name])
        flat = np.moveaxis(weights, axis, 0)
        largest = np.abs(flat).reshape(len(flat), -1).max(axis=1)
        scales = np.where(largest > 0, largest / LEVELS["max/127"], 1).reshape(-1, *[1] * (weights.ndim - 1))
        rounded = np.moveaxis(np.rint(flat / scales) * scales, 0, axis).astype(weights.dtype)
        held[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(rounded), name))
    onnx.save(model, str(path))


def _weighted(model: Any) -> Iterator[tuple[str, str, int]]:
    """Layer, name of its constant weights, and their axis of output channels."""
    from onnx import helper

    held = {item.name: len(item.dims) for item in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        name = node.input[1] if node.op_type in LAYERS and len(node.input) > 1 else ""
        if held.get(name, 0) < 2:
            continue
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        turned = node.op_type == "ConvTranspose" or (node.op_type == "Gemm" and not given.get("transB"))
        axis = held[name] - 1 if node.op_type == "MatMul" else int(turned)
        yield node.name or f"{node.op_type}_{index}", name, axis


def _float_weights(reference: Path) -> dict[str, Floats]:
    """Weights of layers as (output channels, rest) after the folding that comes before quantization, by layer."""
    from onnx import numpy_helper

    model = folded(reference)
    held = {item.name: item for item in model.graph.initializer}
    found: dict[str, Floats] = {}
    for layer, name, axis in _weighted(model):
        weights = numpy_helper.to_array(held[name]).astype(np.float64)
        flat = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
        if flat.size >= SMALLEST:
            found[layer] = flat
    return found
