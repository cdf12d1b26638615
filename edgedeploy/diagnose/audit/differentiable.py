"""An ONNX file as a function of torch that has gradients, rounding included: what a search for triggers climbs along.

Rounding has a gradient of zero nearly everywhere. QuantizeLinear passes gradients straight through where it does not
saturate (Bengio et al. 2013, straight-through estimator), as in training with quantizers. What is found along such
gradients is no finding yet: the artifact itself is asked afterwards, by its own runtime.

The operators are those of convolutional networks. A file with another one is refused, and so is one whose answers
here are not those of ONNX Runtime: the caller says that the search was not made, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import Unsupported

REMEDY: Final = "The search for triggers is left out"
_EXACT_BELOW: Final = 2**24
"""Whole numbers up to here are exact in float32, in which everything is computed."""


class Network:
    """A graph with one floating-point input. Called with a tensor (N, ...), it gives its outputs by name."""

    def __init__(self, path: Path) -> None:
        """Raises ``Unsupported`` for a graph with an operator that is not known here, or with several inputs."""
        import onnx
        import torch

        model = onnx.load(str(path))
        graph = model.graph
        constants = {item.name: _tensor(item) for item in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in constants]
        if len(inputs) != 1:
            raise Unsupported(f"gradients of {path.name}", f"it has {len(inputs)} inputs", REMEDY)
        (self.input,) = inputs
        self.outputs = tuple(value.name for value in graph.output)
        self.last = graph.node[-1].op_type
        self._steps: list[tuple[str, Callable[..., Any], dict[str, Any], list[str], str]] = []
        for node in graph.node:
            given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            if node.op_type == "Constant":
                if "value" not in given:
                    raise Unsupported(f"gradients of {path.name}", f"a Constant of {', '.join(given)}", REMEDY)
                constants[node.output[0]] = _tensor(given["value"])
                continue
            if node.op_type not in OPERATORS:
                raise Unsupported(f"gradients of {path.name}", f"operator {node.op_type} has none here", REMEDY)
            step = (node.op_type, OPERATORS[node.op_type], given, list(node.input), node.output[0])
            if node.input and all(name in constants or not name for name in node.input):
                with torch.no_grad():
                    constants[node.output[0]] = step[1](given, *(constants.get(name) for name in node.input))
                continue
            self._steps.append(step)
        self._constants = constants
        self._last_use = {name: index for index, step in enumerate(self._steps) for name in step[3]}

    def __call__(self, images: Any) -> dict[str, Any]:
        values = {self.input: images}
        for index, (_, compute, given, names, output) in enumerate(self._steps):
            values[output] = compute(given, *(values.get(name, self._constants.get(name)) for name in names))
            for name in names:
                if self._last_use[name] == index and name not in self.outputs:
                    values.pop(name, None)
        return {name: values[name] for name in self.outputs}


def _tensor(item: Any) -> Any:
    import onnx
    import torch

    value = np.array(onnx.numpy_helper.to_array(item))
    if value.dtype.kind in "iub" and value.dtype != np.int64:
        value = value.astype(np.float32) if np.abs(value.astype(np.int64)).max(initial=0) < _EXACT_BELOW else value
        kind = item.data_type
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        tensor.onnx_kind = kind  # type: ignore[attr-defined]  # the type that a zero point has is that of its codes
        return tensor
    return torch.from_numpy(np.ascontiguousarray(value))


# -- quantization


_LIMITS: Final = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767)}
"""Of the types of ONNX: uint8, int8, uint16, int16."""


def _along(value: Any, like: Any, given: Mapping[str, Any]) -> Any:
    if value is None or value.dim() == 0 or value.numel() == 1:
        return value.reshape(()) if value is not None else 0.0
    axis = int(given.get("axis", 1)) % like.dim()
    return value.reshape([-1 if place == axis else 1 for place in range(like.dim())])


def _quantize(given: Mapping[str, Any], value: Any, scale: Any, zero: Any = None) -> Any:
    import torch

    low, high = _LIMITS.get(getattr(zero, "onnx_kind", 2), _LIMITS[2])
    steps = value / _along(scale, value, given)
    rounded = steps + (torch.round(steps) - steps).detach()
    return torch.clamp(rounded + _along(zero, value, given), low, high)


def _dequantize(given: Mapping[str, Any], value: Any, scale: Any, zero: Any = None) -> Any:
    import torch

    value = value.to(torch.float32)
    return (value - _along(zero, value, given)) * _along(scale, value, given)


# -- products


def _pads(given: Mapping[str, Any], spatial: int) -> tuple[Any, list[int]]:
    """The padding for torch: a number each side where both ends are equal, else zero and what is to be padded
    before."""
    pads = list(given.get("pads", [0] * 2 * spatial))
    if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Unsupported("gradients of a convolution", f"its auto_pad is {given['auto_pad'].decode()}", REMEDY)
    begin, end = pads[:spatial], pads[spatial:]
    if begin == end:
        return begin, []
    return [0] * spatial, [size for axis in reversed(range(spatial)) for size in (begin[axis], end[axis])]


def _conv(given: Mapping[str, Any], value: Any, weight: Any, bias: Any = None) -> Any:
    from torch.nn import functional

    spatial = weight.dim() - 2
    padding, before = _pads(given, spatial)
    compute = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[spatial]
    strides, dilations = (list(given.get(name, [1] * spatial)) for name in ("strides", "dilations"))
    value = functional.pad(value, before) if before else value
    return compute(value, weight, bias, strides, padding, dilations, int(given.get("group", 1)))


def _conv_transpose(given: Mapping[str, Any], value: Any, weight: Any, bias: Any = None) -> Any:
    from torch.nn import functional

    spatial = weight.dim() - 2
    padding, uneven = _pads(given, spatial)
    if uneven or "output_shape" in given:
        raise Unsupported("gradients of a transposed convolution", "its padding is uneven", REMEDY)
    compute = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[spatial]
    lists = {name: list(given.get(name, [default] * spatial)) for name, default in _TRANSPOSED.items()}
    group = int(given.get("group", 1))
    return compute(value, weight, bias, lists["strides"], padding, lists["output_padding"], group, lists["dilations"])


_TRANSPOSED: Final = {"strides": 1, "output_padding": 0, "dilations": 1}


def _gemm(given: Mapping[str, Any], a: Any, b: Any, c: Any = None) -> Any:
    a = a.transpose(0, 1) if given.get("transA") else a
    b = b.transpose(0, 1) if given.get("transB") else b
    product = given.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + given.get("beta", 1.0) * c


# -- shapes


def _pool(given: Mapping[str, Any], value: Any, kind: str) -> Any:
    from torch.nn import functional

    size = list(given["kernel_shape"])
    padding, before = _pads(given, len(size))
    strides, ceil = list(given.get("strides", [1] * len(size))), bool(given.get("ceil_mode", 0))
    if before or any(step != 1 for step in given.get("dilations", ())):
        raise Unsupported("gradients of a pooling", "it is dilated, or its padding is uneven", REMEDY)
    if kind == "max":
        compute: Any = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[len(size)]
        return compute(value, size, strides, padding, ceil_mode=ceil)
    compute = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(size)]
    return compute(value, size, strides, padding, ceil, bool(given.get("count_include_pad", 0)))


def _reshape(given: Mapping[str, Any], value: Any, shape: Any) -> Any:
    sizes = [int(size) for size in shape]
    sizes = [value.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    if sizes and sizes[0] == 1 and -1 not in sizes:
        sizes[0] = -1  # written down for one case
    elif sizes and sizes[0] == 1:
        sizes[0] = value.shape[0]
    return value.reshape(sizes)


def _flatten(given: Mapping[str, Any], value: Any) -> Any:
    axis = int(given.get("axis", 1))
    return value.flatten(axis) if axis == 1 else value.reshape(int(np.prod(value.shape[:axis])), -1)


def _resize(given: Mapping[str, Any], value: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    from torch.nn import functional

    mode, way = given.get("mode", b"nearest").decode(), given.get("coordinate_transformation_mode", b"half_pixel")
    spatial = value.dim() - 2
    if sizes is not None and sizes.numel():
        size = [int(number) for number in sizes][-spatial:]
    else:
        size = [round(value.shape[2 + axis] * float(scales[-spatial:][axis])) for axis in range(spatial)]
    if mode == "nearest":
        return functional.interpolate(value, size=size, mode="nearest")
    if mode != "linear" or spatial not in (1, 2, 3):
        raise Unsupported("gradients of a Resize", f"its mode is {mode}", REMEDY)
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[spatial]
    return functional.interpolate(value, size=size, mode=linear, align_corners=way == b"align_corners")


def _clip(given: Mapping[str, Any], value: Any, low: Any = None, high: Any = None) -> Any:
    low = given.get("min") if low is None or not low.numel() else float(low)
    high = given.get("max") if high is None or not high.numel() else float(high)
    return value.clamp(low, high)


def _batch_norm(given: Mapping[str, Any], value: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    from torch.nn import functional

    return functional.batch_norm(value, mean, variance, scale, bias, False, 0.0, float(given.get("epsilon", 1e-5)))


def _concat(given: Mapping[str, Any], *values: Any) -> Any:
    import torch

    return torch.cat(values, int(given["axis"]))


def _mean(given: Mapping[str, Any], value: Any, axes: Any = None) -> Any:
    over = given.get("axes") if axes is None else [int(axis) for axis in axes]
    kept = bool(given.get("keepdims", 1))
    return value.mean(tuple(over or range(value.dim())), keepdim=kept)


def _softmax(given: Mapping[str, Any], value: Any) -> Any:
    return value.softmax(int(given.get("axis", -1)))


def _leaky(given: Mapping[str, Any], value: Any) -> Any:
    from torch.nn import functional

    return functional.leaky_relu(value, float(given.get("alpha", 0.01)))


def _transpose(given: Mapping[str, Any], value: Any) -> Any:
    return value.permute(tuple(given.get("perm", reversed(range(value.dim())))))


OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": lambda given, a, b: a @ b,
    "BatchNormalization": _batch_norm,
    "MaxPool": lambda given, value: _pool(given, value, "max"),
    "AveragePool": lambda given, value: _pool(given, value, "average"),
    "GlobalAveragePool": lambda given, value: value.mean(tuple(range(2, value.dim())), keepdim=True),
    "ReduceMean": _mean,
    "Relu": lambda given, value: value.relu(),
    "LeakyRelu": _leaky,
    "Sigmoid": lambda given, value: value.sigmoid(),
    "Tanh": lambda given, value: value.tanh(),
    "Softmax": _softmax,
    "Clip": _clip,
    "Add": lambda given, a, b: a + b,
    "Sub": lambda given, a, b: a - b,
    "Mul": lambda given, a, b: a * b,
    "Div": lambda given, a, b: a / b,
    "Concat": _concat,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Resize": _resize,
    "Identity": lambda given, value: value,
    "Dropout": lambda given, value, *rest: value,
}
"""What each computes, from its attributes and inputs."""


def stacked_outputs(network: Network, images: Any, batch: int = 64) -> dict[str, Any]:
    """Outputs of many images (N, ...), as arrays, without gradients."""
    import torch

    with torch.no_grad():
        rows = torch.as_tensor(images)
        parts: Sequence[Mapping[str, Any]] = [
            network(rows[first : first + batch]) for first in range(0, len(rows), batch)
        ]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in network.outputs}
