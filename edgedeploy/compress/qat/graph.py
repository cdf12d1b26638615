"""Places quantizers in a model that ``torch.export`` has turned into a graph, after folding its batch norms.

The ONNX reference comes from ``torch.export`` too: a model that can be exported can be trained with quantizers.

What is quantized, and why:

- The inputs and weights of convolutions, transposed convolutions and linear layers; weights per output channel.
- The outputs of convolutions, after a following ReLU or ReLU6 if there is one: the integer convolutions of ONNX Runtime
  have integer outputs. Outputs of linear layers may stay float.
- Both inputs and the output of an addition that reads a convolution's output. Residual streams of transformers stay
  float: a few of their channels are a hundred times larger than the others.
- Nothing of an addition that carries an input of the network to an output (:mod:`edgedeploy.reference.skips`): its own
  side stays float, and so does the sum.
- Operators that only move values (max pooling, reshaping, nearest-neighbour resizing) have the same scale before and
  after; all inputs and the output of a concatenation share one scale. Integer values then pass through unchanged.

Biases stay float in the file. Runtimes quantize them to int32 by the scales beside them.
"""

from __future__ import annotations

import copy
import inspect
import operator as python_operator
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from torch import fx, nn

from edgedeploy.compress.qat.fakequant import ActivationQuantizer, FrozenQuantizer, Ranges, WeightQuantizer
from edgedeploy.errors import Unsupported
from edgedeploy.reference.copies import baked, copied
from edgedeploy.reference.skips import Step, untouched
from edgedeploy.reference.translate import untraceable
from edgedeploy.reference.weights import Numbers, numbers, same

CONVOLUTIONS: Final = ("conv1d", "conv2d", "conv3d")
TRANSPOSED: Final = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
WEIGHTED: Final = (*CONVOLUTIONS, *TRANSPOSED, "linear")
CLIPPED: Final = ("relu", "relu6", "hardtanh")
"""Monotonic functions that map 0 to 0: quantizing before and after them with one scale equals quantizing after them."""

MOVING: Final = (
    *("max_pool1d", "max_pool2d", "max_pool3d", "reshape", "flatten", "permute", "transpose", "unsqueeze"),
    *(
        "squeeze",
        "clone",
        "contiguous",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "pixel_shuffle",
    ),
)
"""Operators whose output holds values of the input unchanged; all of them except max pooling keep every value. Slicing
is not listed: a part of a tensor has its own range."""

BATCH_NORMS: Final = ("_native_batch_norm_legit_no_training", "batch_norm")


def trace(model: nn.Module, inputs: Sequence[torch.Tensor]) -> fx.GraphModule:
    """``model`` in evaluation mode as a graph of functional ATen operators with an open batch size; ``inputs`` have batch
    size 2 or more. Dropout is gone, batch norms keep their statistics, and weight norms have become their weights. Raises
    ``Unsupported``."""
    frozen = baked(copied(model))
    for parameter in frozen.parameters():
        parameter.requires_grad_(True)
    shapes: tuple[Any, ...] = tuple(
        (torch.export.Dim.DYNAMIC, *[torch.export.Dim.STATIC] * (value.ndim - 1)) for value in inputs
    )
    if any(one.kind is one.VAR_POSITIONAL for one in inspect.signature(frozen.forward).parameters.values()):
        shapes = (shapes,)
    try:
        with torch.enable_grad(), _quiet():
            program = torch.export.export(frozen, tuple(inputs), dynamic_shapes=shapes, strict=False)
            traced = program.run_decompositions({}).module(check_guards=False)
    except Exception as exc:  # export wraps whatever a foreign forward runs into
        found = untraceable(exc)
        remedy = "The forward has to be traceable with torch.export for any batch size; or search training = ['ptq']"
        raise Unsupported("a graph to train with quantizers", found, remedy) from exc
    graph = cast(fx.GraphModule, traced).graph
    for node in graph.nodes:
        if kind(node) in ("view", "_unsafe_view"):  # traced in one memory layout, trained in another
            node.target = torch.ops.aten.reshape.default
    graph.eliminate_dead_code()
    return _module(traced, graph)


def fold_batch_norms(model: fx.GraphModule) -> fx.GraphModule:
    """``model`` with every batch norm that directly follows a convolution merged into its weights and bias.

    With ``k = gamma / sqrt(variance + eps)`` per output channel: ``w' = k w``, ``b' = k (b - mean) + beta``.
    """
    for norm in [node for node in model.graph.nodes if kind(node) in BATCH_NORMS]:
        layer = norm.args[0]
        if kind(layer) in (*CONVOLUTIONS, *TRANSPOSED) and len(layer.users) == 1 and _owns_weights(layer):
            _fold(model, layer, norm)
    model.graph.eliminate_dead_code()
    return _module(model, model.graph)


def place_quantizers(
    model: fx.GraphModule,
    ranges: Ranges,
    *,
    percentile: float,
    momentum: float,
    kept: Collection[fx.Node] = (),
    weight_bits: int = 8,
) -> fx.GraphModule:
    """``model`` with quantizers that are all observing; layers in ``kept`` stay float and get none. ``weight_bits`` is
    7 for processors whose int8 sums saturate. Raises ``Unsupported`` when there is nothing to quantize."""
    layers = [node for node in _weighted(model.graph) if node not in kept]
    if not layers:
        found = "the plan keeps every layer" if kept else "no convolution or linear layer has weights of its own"
        raise Unsupported("int8 layers", found, "Search float32")
    skips = _input_skips(model.graph)
    for number, group in enumerate(quantized_groups(model.graph, kept)):
        name = f"activation_quantizer_{number}"
        quantizer = ActivationQuantizer(ranges, sites=len(group), percentile=percentile, momentum=momentum)
        model.add_submodule(name, quantizer)
        for site, node in enumerate(group):
            _put_after(model.graph, node, name, site, skips)
    for number, layer in enumerate(layers):
        name = f"weight_quantizer_{number}"
        model.add_submodule(name, WeightQuantizer(channel_axis(layer), weight_bits))
        with model.graph.inserting_before(layer):
            layer.update_arg(1, model.graph.call_module(name, (layer.args[1],)))
    model.graph.lint()
    model.recompile()
    return model


def layers_with(model: fx.GraphModule, weights: Mapping[str, Numbers]) -> set[fx.Node]:
    """The layers whose weights equal an entry of ``weights``, which maps the reference's layer names to weights. Raises
    ``Unsupported`` for an entry that matches no layer."""
    own = {node: numbers(_own_weights(model, node)) for node in _weighted(model.graph)}
    found: set[fx.Node] = set()
    for name, wanted in weights.items():
        fitting = {node for node, values in own.items() if same(wanted, values)}
        if not fitting:
            text = "the network has no convolution or linear layer with its weights"
            raise Unsupported(f"layer {name!r} in float32 in a trained int8 model", text, "Choose other layers")
        found |= fitting
    return found


def freeze(model: fx.GraphModule) -> fx.GraphModule:
    """A copy with fixed scales, in evaluation mode, that computes what ``model`` does in evaluation mode.

    A ReLU after a convolution gets a second quantizer in front of it, with the scale of the one behind it. It changes
    no value. Without it ONNX Runtime (1.32) runs the convolution in float, because it cannot fuse a ReLU at zero point
    0.
    """
    with _quiet():
        frozen = copy.deepcopy(model).eval()
    for node in list(frozen.graph.nodes):
        if node.op != "call_module":
            continue
        quantizer = frozen.get_submodule(str(node.target))
        node.args = node.args[:1]  # without the site
        if isinstance(quantizer, ActivationQuantizer):
            frozen.set_submodule(str(node.target), quantizer.frozen())
        elif isinstance(quantizer, WeightQuantizer):
            weights = frozen.get_parameter(str(node.args[0].target))
            frozen.set_submodule(str(node.target), quantizer.frozen(weights))
    for node in list(frozen.graph.nodes):
        source = node.args[0] if node.args else None
        if node.op == "call_module" and isinstance(source, fx.Node) and _is_clipped_block(source):
            before = cast(fx.Node, source.args[0])
            with frozen.graph.inserting_before(source):
                source.update_arg(0, frozen.graph.call_module(str(node.target), (before,)))
    frozen.graph.lint()
    frozen.recompile()
    return frozen


def quantizers(model: nn.Module) -> Iterator[ActivationQuantizer]:
    return (module for module in model.modules() if isinstance(module, ActivationQuantizer))


def scales(model: nn.Module) -> dict[str, torch.Tensor]:
    """Scales of a frozen model by the name of the quantizer."""
    return {name: module.scale for name, module in model.named_modules() if isinstance(module, FrozenQuantizer)}


def quantized_groups(graph: fx.Graph, kept: Collection[fx.Node] = ()) -> list[list[fx.Node]]:
    """The nodes whose values are quantized, in groups that share a scale. The module's docstring has the rules. Layers
    in ``kept`` stay float and need no quantized inputs or outputs."""
    wanted: dict[fx.Node, int] = {}
    groups: dict[int, list[fx.Node]] = {}
    pending: list[fx.Node] = []

    def want(node: fx.Node, like: fx.Node | None = None) -> None:
        if node not in wanted:
            wanted[node] = len(wanted)
            groups[wanted[node]] = [node]
            pending.append(node)
        if like is not None and wanted[like] != wanted[node]:
            for moved in groups.pop(old := wanted[node]):
                wanted[moved] = wanted[like]
                groups[wanted[like]].append(moved)
            assert old not in groups

    for node in _seeds(graph, kept):
        want(node)
    while pending:
        node = pending.pop()
        for source in _same_values(node):
            want(source, like=node)
    order = {node: index for index, node in enumerate(graph.nodes)}
    sorted_groups = [sorted(group, key=order.__getitem__) for group in groups.values()]
    return sorted(sorted_groups, key=lambda group: order[group[0]])


def channel_axis(layer: fx.Node) -> int | None:
    """The axis of a layer's weights that indexes its output channels; None for a grouped transposed convolution, which
    has no such axis."""
    if kind(layer) not in TRANSPOSED:
        return 0
    groups = layer.args[6] if len(layer.args) > 6 else layer.kwargs.get("groups", 1)
    return 1 if groups == 1 else None


def kind(node: object) -> str:
    """The ATen operator of a node without its overload: ``conv2d``; empty for anything else."""
    target = node.target if isinstance(node, fx.Node) and node.op == "call_function" else None
    return target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else ""


def _module(root: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A module that runs ``graph`` with the parameters and buffers of ``root`` that the graph reads."""
    with _quiet():
        return fx.GraphModule(root, graph)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides torch's warnings about its own deprecated code, which copying a graph calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _input_skips(graph: fx.Graph) -> dict[fx.Node, tuple[fx.Node, ...]]:
    """Nodes that stay float, each with those that it reads as they are."""
    computed = {node.name: node for node in graph.nodes if node.op not in ("get_attr", "placeholder", "output")}
    steps = [
        Step(
            node.name,
            tuple("" if read.op == "get_attr" else read.name for read in node.all_input_nodes),
            (node.name,),
            kind(node) in WEIGHTED,
            kind(node) in ("add", "sub"),
        )
        for node in computed.values()
    ]
    given = [node.name for node in graph.nodes if node.op == "placeholder" and node.meta["val"].is_floating_point()]
    answers = [read.name for node in graph.nodes if node.op == "output" for read in node.all_input_nodes]
    found = untouched(steps, given, answers)
    return {
        computed[name]: tuple(computed[name].all_input_nodes[place] for place in places)
        for name, places in found.items()
    }


def _seeds(graph: fx.Graph, kept: Collection[fx.Node]) -> Iterator[fx.Node]:
    skips = _input_skips(graph)
    for node in graph.nodes:
        if kind(node) in WEIGHTED and _owns_weights(node):
            if node in kept:
                continue
            yield node.args[0]
            if kind(node) in CONVOLUTIONS:
                yield _block_output(node)
        elif kind(node) == "add" and node not in skips and _adds_convolution(node, kept):
            yield from node.args
            yield _block_output(node)


def _same_values(node: fx.Node) -> Iterable[fx.Node]:
    """The inputs whose values ``node`` passes through unchanged."""
    if kind(node) in MOVING:
        return [node.args[0]] if isinstance(node.args[0], fx.Node) else []
    return list(cast(Sequence[fx.Node], node.args[0])) if kind(node) == "cat" else []


def _block_output(node: fx.Node) -> fx.Node:
    """``node``, or the ReLU after it when that ReLU is its only reader."""
    follower = next(iter(node.users), None)
    return follower if follower is not None and len(node.users) == 1 and _is_clipped_block(follower) else node


def _is_clipped_block(node: fx.Node) -> bool:
    """Whether ``node`` is a ReLU or ReLU6 and the only reader of a layer or an addition."""
    if kind(node) not in CLIPPED or (kind(node) == "hardtanh" and (len(node.args) < 3 or node.args[1] != 0)):
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and kind(source) in (*WEIGHTED, "add") and len(source.users) == 1


def _adds_convolution(node: fx.Node, kept: Collection[fx.Node]) -> bool:
    """Whether ``node`` adds two activations of equal shape, at least one of them from a convolution that is not in
    ``kept``."""
    if len(node.args) != 2 or not all(isinstance(value, fx.Node) for value in node.args):
        return False
    first, second = cast(Sequence[fx.Node], node.args)
    if "get_attr" in (first.op, second.op) or first.meta["val"].shape != second.meta["val"].shape:
        return False
    return any(_is_from_convolution(value, kept) for value in (first, second))


def _is_from_convolution(node: fx.Node, kept: Collection[fx.Node]) -> bool:
    if kind(node) in (*CLIPPED, *MOVING) and isinstance(node.args[0], fx.Node):
        return _is_from_convolution(node.args[0], kept)
    return kind(node) in (*CONVOLUTIONS, *TRANSPOSED) and node not in kept


def _weighted(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if kind(node) in WEIGHTED and _owns_weights(node)]


def _own_weights(model: fx.GraphModule, layer: fx.Node) -> Numbers:
    weights = _tensor(model, layer.args[1])
    assert weights is not None
    return weights.numpy()


def _owns_weights(layer: fx.Node) -> bool:
    """Whether the layer's weights are a parameter that no other node reads."""
    weights = layer.args[1]
    return isinstance(weights, fx.Node) and weights.op == "get_attr" and len(weights.users) == 1


def _put_after(
    graph: fx.Graph, node: fx.Node, name: str, site: int, skips: Mapping[fx.Node, tuple[fx.Node, ...]]
) -> None:
    with graph.inserting_after(node):
        quantized = graph.call_module(name, (node, site))
    node.replace_all_uses_with(
        quantized, delete_user_cb=lambda user: user is not quantized and node not in skips.get(user, ())
    )


def _fold(model: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> None:
    gamma, beta, mean, variance = (_tensor(model, value) for value in norm.args[1:5])
    eps = float(cast(float, norm.args[6] if kind(norm) == "_native_batch_norm_legit_no_training" else norm.args[7]))
    weights = _tensor(model, layer.args[1])
    bias = _tensor(model, layer.args[2] if len(layer.args) > 2 else None)
    assert weights is not None and mean is not None and variance is not None
    factor = (gamma if gamma is not None else 1.0) / torch.sqrt(variance + eps)
    axis = channel_axis(layer)
    name = str(cast(fx.Node, layer.args[1]).target)
    with torch.no_grad():
        new_weights = _scaled(weights, factor, axis)
        new_bias = factor * ((bias if bias is not None else 0.0) - mean) + (beta if beta is not None else 0.0)
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    setattr(module, leaf, nn.Parameter(new_weights))
    module.register_parameter("folded_bias", nn.Parameter(new_bias))
    with model.graph.inserting_before(layer):
        layer.args = (*layer.args[:2], model.graph.get_attr(f"{owner}.folded_bias".lstrip(".")), *layer.args[3:])
    for reader in [user for user in norm.users if user.target is python_operator.getitem] or [norm]:
        reader.replace_all_uses_with(layer)


def _scaled(weights: torch.Tensor, factor: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Weights times a factor per output channel. Transposed and grouped ones hold (in, out / groups, ...)."""
    if axis is not None:
        return weights * factor.view([-1 if dim == axis else 1 for dim in range(weights.ndim)])
    groups = factor.numel() // weights.shape[1]
    parts = weights.view(groups, -1, *weights.shape[1:])
    return (parts * factor.view(groups, 1, -1, *[1] * (weights.ndim - 2))).view_as(weights)


def _tensor(model: fx.GraphModule, value: object) -> torch.Tensor | None:
    """The parameter or buffer that a ``get_attr`` node reads."""
    if not isinstance(value, fx.Node):
        return None
    owner, _, leaf = str(value.target).rpartition(".")
    found: torch.Tensor = getattr(model.get_submodule(owner), leaf)
    return found.detach()
