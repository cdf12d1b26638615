"""Converts programs that were trained to be int8: their quantizers become the scales of the file.

litert-torch keeps pairs of ``quantized_decomposed`` operators through the conversion, and its converter makes integer
operators of what lies between them, with these scales and no others. What training left in float stays so, with one
exception: LiteRT's integer layers have integer outputs. Where a layer has int8 weights and nothing has learned the
range of its output (linear layers; the layer before a sum that stays float), the range is calibrated: the extremes over
all calibration cases, for nothing else is clipped there either.

This module imports torch at its top: import it inside functions that run in the tool's process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import fx

from edgedeploy.interfaces.task import Array
from edgedeploy.reference.quantized import along

QMIN: Final = -128
QMAX: Final = 127
LAYERS: Final = (
    *("conv1d", "conv2d", "conv3d", "linear"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
CLIPPED: Final = ("relu", "relu6", "hardtanh")
"""What converters fuse into the layer before it."""

PER_TENSOR: Final = "fake_quantize_per_tensor_affine"
PER_CHANNEL: Final = "fake_quantize_per_channel_affine"


@dataclass(frozen=True)
class Weights:
    """Trained weights: ``steps`` times ``scale``, which has one entry per index along ``axis`` (None: one for all)."""

    steps: Array
    scale: Array
    axis: int | None

    @property
    def values(self) -> Array:
        return np.multiply(self.steps, along(self.scale, self.axis, self.steps.ndim), dtype=np.float32)


@dataclass(frozen=True)
class Scales:
    """What a converted file may have: ``learned`` scales of activations (zero point 0), the ``calibrated`` ones with
    their zero points, and the layers' ``weights``."""

    learned: tuple[float, ...]
    calibrated: tuple[tuple[float, int], ...]
    weights: tuple[Weights, ...]


def with_scales(module: fx.GraphModule, cases: Iterable[Sequence[torch.Tensor]]) -> Scales:
    """Replace the fake quantizers of ``module`` by pairs that the converter reads, in place. ``cases`` are read only
    where a range has to be calibrated."""
    open_ends = list(_open_ends(module.graph))
    bounds = _bounds(module, open_ends, cases) if open_ends else {}
    weights, learned = [], []
    for node in [node for node in module.graph.nodes if kind(node) in (PER_TENSOR, PER_CHANNEL)]:
        source = node.args[0]
        if source.op == "get_attr":
            weights.append(_baked(module, node))
        else:
            scale = float(_tensor(module, node.args[1]))
            learned.append(scale)
            _pair(module.graph, node, source, scale, 0, list(node.users))
            module.graph.erase_node(node)
    calibrated = []
    for node in open_ends:
        scale, zero = _asymmetric(*bounds[node])
        calibrated.append((scale, zero))
        _pair(module.graph, node, node, scale, zero, list(node.users))
    module.graph.lint()
    module.recompile()
    return Scales(tuple(learned), tuple(calibrated), tuple(weights))


def kind(node: object) -> str:
    """The ATen operator of a node without its overload; empty for anything else."""
    target = node.target if isinstance(node, fx.Node) and node.op == "call_function" else None
    return target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else ""


def _is_quantizer(node: object) -> bool:
    return kind(node) in (PER_TENSOR, PER_CHANNEL)


def _open_ends(graph: fx.Graph) -> Iterator[fx.Node]:
    """Outputs of int8 layers that no quantizer reads, each after a ReLU behind the layer if there is one."""
    for node in graph.nodes:
        if kind(node) not in LAYERS or not (_is_quantizer(node.args[0]) and _is_quantizer(node.args[1])):
            continue
        after = next(iter(node.users), None)
        end = after if after is not None and len(node.users) == 1 and kind(after) in CLIPPED else node
        if not any(map(_is_quantizer, end.users)):
            yield end


def _bounds(
    module: fx.GraphModule, ends: Sequence[fx.Node], cases: Iterable[Sequence[torch.Tensor]]
) -> dict[fx.Node, tuple[float, float]]:
    """Smallest and largest value of each node over all cases."""
    bounds = dict.fromkeys(ends, (0.0, 0.0))

    class Watched(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            found = super().run_node(node)
            if node in bounds:
                low, high = bounds[node]
                bounds[node] = (min(low, float(found.min())), max(high, float(found.max())))
            return found

    with torch.no_grad():
        for case in cases:
            Watched(module).run(*case)
    return bounds


def _asymmetric(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of int8 for values from ``low`` <= 0 to ``high`` >= 0."""
    scale = float(np.float32(max(high - low, 1e-6) / (QMAX - QMIN)))
    return scale, int(np.clip(round(QMIN - low / scale), QMIN, QMAX))


def _pair(
    graph: fx.Graph, after: fx.Node, source: fx.Node, scale: float, zero: int, readers: Sequence[fx.Node]
) -> None:
    """Let ``readers`` of ``after`` read ``source`` through int8 steps of ``scale``."""
    operators = torch.ops.quantized_decomposed
    how = (scale, zero, QMIN, QMAX, torch.int8)
    with graph.inserting_after(after):
        steps = graph.call_function(operators.quantize_per_tensor.default, (source, *how))
    with graph.inserting_after(steps):
        values = graph.call_function(operators.dequantize_per_tensor.default, (steps, *how))
    for reader in readers:
        reader.replace_input_with(after, values)


def _baked(module: fx.GraphModule, node: fx.Node) -> Weights:
    """Put a pair behind weights that are exact multiples of the scale, so that no rounding of the converter's differs."""
    weights = _tensor(module, node.args[0])
    scale = _tensor(module, node.args[1])
    axis = int(node.args[3]) if kind(node) == PER_CHANNEL else None  # type: ignore[arg-type]
    held = scale.double().numpy()
    steps = np.clip(np.rint(weights.double().numpy() / along(held, axis, weights.ndim)), QMIN, QMAX)
    found = Weights(steps.astype(np.int8), np.asarray(scale.numpy()), axis)
    module.register_buffer(name := f"baked_{node.name}", torch.from_numpy(found.values))
    with module.graph.inserting_before(node):
        exact = module.graph.get_attr(name)
    if axis is None:
        _pair(module.graph, node, exact, float(scale), 0, list(node.users))
    else:
        _pair_per_channel(module, node, exact, scale, axis)
    module.graph.erase_node(node)
    return found


def _pair_per_channel(module: fx.GraphModule, node: fx.Node, exact: fx.Node, scale: torch.Tensor, axis: int) -> None:
    operators = torch.ops.quantized_decomposed
    module.register_buffer(f"scale_{node.name}", scale.clone())
    module.register_buffer(f"zero_{node.name}", torch.zeros(scale.shape, dtype=torch.int64))
    with module.graph.inserting_before(node):
        how: tuple[Any, ...] = (
            *(module.graph.get_attr(f"{what}_{node.name}") for what in ("scale", "zero")),
            *(axis, QMIN, QMAX, torch.int8),
        )
        steps = module.graph.call_function(operators.quantize_per_channel.default, (exact, *how))
        values = module.graph.call_function(operators.dequantize_per_channel.default, (steps, *how))
    node.replace_all_uses_with(values)


def _tensor(module: fx.GraphModule, node: Any) -> torch.Tensor:
    """The parameter or buffer that a ``get_attr`` node reads."""
    owner, _, leaf = str(node.target).rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(owner), leaf)
    return found.detach()
