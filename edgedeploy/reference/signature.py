"""What a user's ONNX file says of its inputs and outputs, and what a user fixes of them: constants and shapes. Only for the
process with limits (:mod:`.take_in_child`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import OpenShape, Setting, SpecError, Unsupported, nearest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.take_in import SHAPES

ELEMENT_TYPES: Final = ("float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool")


def fix_values(path: Path, model: Any, constants: Mapping[str, Any]) -> dict[str, Array]:
    """Put constants in the place of inputs. Returns their values as arrays."""
    import onnx

    inputs = {value.name: value for value in model.graph.input}
    found: dict[str, Array] = {}
    for name, value in constants.items():
        asked = f"task.options.constants.{name} = {value}"
        if name not in inputs:
            raise SpecError(asked, "the model has no such input", nearest(name, inputs))
        tensor = inputs[name].type.tensor_type
        try:
            array = np.asarray(value).astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except (KeyError, ValueError, TypeError):
            raise SpecError(asked, "it is no number or table of numbers", "For example { sr = 16000 }") from None
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if tensor.HasField("shape"):
            if array.ndim == 0 and all(size == 1 for size in sizes):
                array = array.reshape([1] * len(sizes))
            if len(sizes) != array.ndim or any(s not in (None, n) for s, n in zip(sizes, array.shape, strict=True)):
                raise SpecError(asked, f"the model has {sizes}", "Give as many numbers as the input has")
        model.graph.input.remove(inputs[name])
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        found[name] = array
    return found


def fix_shapes(path: Path, model: Any, shapes: Mapping[str, Sequence[int]]) -> list[str]:
    inputs = {value.name: value for value in model.graph.input}
    for name, wanted in shapes.items():
        if name not in inputs:
            raise SpecError(Setting(f"{SHAPES}.{name}"), "the model has no such input", nearest(name, inputs))
        tensor = inputs[name].type.tensor_type
        if not tensor.HasField("shape"):
            for _ in wanted:
                tensor.shape.dim.add()
        found = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
        if len(found) != len(wanted) or any(
            isinstance(old, int) and old != new for old, new in zip(found, wanted, strict=True)
        ):
            raise SpecError(
                Setting(f"{SHAPES}.{name}", str(list(wanted))), f"the model has {found}", "Give its open dimensions"
            )
        for dimension, size in zip(tensor.shape.dim, wanted, strict=True):
            dimension.dim_value = size
    for value in model.graph.input:
        spec_of(path, value)
    if not shapes:
        return []
    for value in model.graph.output:  # the recorded output shapes were inferred from open input shapes
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.Clear()
    del model.graph.value_info[:]
    return [f"input {name} was given the shape {list(shape)}" for name, shape in shapes.items()]


def check_array(path: Path, value: Any) -> None:
    if not value.type.HasField("tensor_type"):
        asked, found = f"tensor {value.name!r} of {path.name} as an array", f"it is a {value.type.WhichOneof('value')}"
        raise Unsupported(asked, found, "Export it with arrays only")


def spec_of(path: Path, value: Any) -> TensorSpec:
    import onnx

    asked = f"tensor {value.name!r} of {path.name}"
    check_array(path, value)
    tensor = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        dtype = "undefined"
    if dtype not in ELEMENT_TYPES:
        raise Unsupported(f"{asked} as numbers", f"its element type is {dtype}", "Export it with numbers only")
    if not tensor.HasField("shape"):
        raise _open(asked, "the file does not say how many dimensions it has", OpenShape(value.name, None))
    known = OpenShape(value.name, tuple(_size(place, dimension) for place, dimension in enumerate(tensor.shape.dim)))
    shape = []
    for place, dimension in enumerate(tensor.shape.dim):
        if not dimension.HasField("dim_value") or dimension.dim_value < 1:
            raise _open(asked, f"dimension {place} ({dimension.dim_param or 'unnamed'}) is open", known)
        shape.append(int(dimension.dim_value))
    return TensorSpec(value.name, dtype, tuple(shape))


def _open(asked: str, found: str, shape: OpenShape) -> Unsupported:
    sizes = "1, ..." if shape.sizes is None else ", ".join(map(str, shape.sizes))
    remedy = f"One artifact serves one shape: name it in [{SHAPES}], {shape.name!r} = [{sizes}]"
    return Unsupported(f"one shape for {asked}", found, remedy, shape)


def _size(place: int, dimension: Any) -> int | str:
    """A dimension in a shape that a user has to fill in: an open first one is the batch, which is 1."""
    if dimension.HasField("dim_value") and dimension.dim_value > 0:
        return int(dimension.dim_value)
    return 1 if place == 0 else dimension.dim_param or "?"
