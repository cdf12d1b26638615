"""Structured pruning removes whole channels: every runtime gets a smaller dense network and needs no sparse kernels.

torch-pruning's dependency graph finds which channels of which layers have to go together (skips, concatenations, batch
norms, transposed convolutions). The least important go first, by their group's L2 magnitude, in each group alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.compress.allocation import NO_SHARES, NO_WIDTHS, Sensitivity, Share, share_of, spread
from edgedeploy.compress.channels import channel_groups, importance, layer_costs
from edgedeploy.errors import BuildError, SpecError, Unsupported
from edgedeploy.reference.calling import call, flat_tensors, map_tensors, plain_model
from edgedeploy.reference.copies import baked, copied
from edgedeploy.reference.randomness import Trail
from edgedeploy.reference.translate import first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

CHANNEL_MULTIPLE: Final = 4
"""Widths are rounded down to a multiple of this, and are at least this, as far as a layer has so many. int8 dot-product
instructions (VNNI, SDOT) sum four input channels in one 32-bit lane, so another width is padded to the next multiple of
four and costs as much. Measured on the 16-channel UNet at 128 x 128 (ONNX Runtime float32, a busy machine): 16 channels
41 ms, 14: 47, 12: 33, 10: 35, 8: 17.
With multiples of eight, a 16-channel layer, the most expensive one of a UNet, could only be halved."""

SPREAD_MULTIPLE: Final = 8
"""Widths that are spread by sensitivity are multiples of this: float kernels compute eight or sixteen channels at a time. Of
a U-Net of 950,000 parameters at 192 x 192 and half the width by multiplications, ONNX Runtime's CPU time was 0.44 of the
whole network's, with multiples of four 0.49 (AVX512, one thread, a busy machine); the loss was no larger."""


def prune(
    model: nn.Module,
    example_inputs: Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
    width: float,
    *,
    protect: Sequence[str] = (),
    sensitivity: Sensitivity | None = None,
    widths: Mapping[str, int] | None = None,
) -> nn.Module:
    """A pruned copy of ``model`` in eval mode that keeps the share ``width`` (0 < width <= 1) of every layer's channels,
    rounded down to a multiple of ``CHANNEL_MULTIPLE``; at width 1, an untouched copy.

    With a ``sensitivity`` the layers keep different shares: what the uniform width costs is spent where the loss needs it
    (:mod:`edgedeploy.compress.allocation`). With ``widths`` the layers keep so many channels, as a network that was pruned
    before has them: all its layers by name.

    ``example_inputs`` are the model's inputs with batch size 1, by position or by name. Three kinds of layers keep their
    channels: those that produce the outputs (found by walking back from the outputs, not by name), those named in
    ``protect``, and those without which the network no longer runs: a layer whose output is added to the input itself.
    Input channels and output shapes do not change. Nothing is random: equal weights give equal networks. Weight norms and
    other parametrizations are replaced by the weights that they compute.

    Raises ``SpecError`` for a width out of range or an unknown name in ``protect``, ``Unsupported`` when there is nothing
    to prune at this width, the budget is below the least channels of all layers, or torch-pruning cannot follow the model.
    """
    if not 0.0 < width <= 1.0:
        raise SpecError("width", f"found {width}", "It is the share of channels to keep: above 0, at most 1")
    whole: nn.Module = copied(plain_model(model)).eval()
    if width == 1.0:
        return whole
    baked(whole)
    frozen = {name for name, parameter in whole.named_parameters() if not parameter.requires_grad}
    inputs = map_tensors(
        dict(example_inputs) if isinstance(example_inputs, Mapping) else tuple(example_inputs),
        lambda tensor: tensor.detach().clone(),
    )
    _named(whole, protect)
    kept = [*output_layers(whole, inputs), *protect]
    shapes = _output_shapes(whole, inputs, width)
    pruned: nn.Module = copied(whole)
    _cut(pruned, inputs, width, kept)
    if not _runs(pruned, inputs, shapes):
        kept += [
            name for group in _groups(whole, inputs, kept) for name in _broken_by(group, whole, inputs, width, shapes)
        ]
        pruned = copied(whole)
        _cut(pruned, inputs, width, kept)
    if sensitivity is not None or widths is not None:
        if sensitivity is not None:
            shares = _spread(whole, inputs, kept, channel_widths(pruned), sensitivity)
        else:
            uniform, full = channel_widths(pruned), channel_widths(whole)
            told = {name: count for name, count in (widths or {}).items() if count != uniform[name]}
            shares = {name: share_of(count, full[name]) for name, count in told.items()}
        pruned = copied(whole)
        _cut(pruned, inputs, width, kept, shares, widths)
    found = _output_shapes(pruned, inputs, width)
    if found != shapes:
        asked = f"output shapes {shapes} after pruning to width {width:g}"
        raise BuildError(asked, f"{found}", "Search width = 1 for this model")
    before, after = channel_widths(whole), channel_widths(pruned)
    if after == before:
        raise Unsupported(
            f"pruning to width {width:g}",
            f"no layer got narrower (widths {sorted(set(before.values()))}, in steps of {CHANNEL_MULTIPLE})",
            "Search a smaller width",
        )
    for name, parameter in pruned.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return pruned


def channel_widths(model: nn.Module) -> dict[str, int]:
    """Output channels (convolutions) or features (linear layers) by module name."""
    return {name: int(_width(module)) for name, module in model.named_modules() if _is_layer(module)}


def output_layers(model: nn.Module, inputs: Any) -> tuple[str, ...]:
    """Names of the last convolutions and linear layers before each output: no other such layer lies between them and the
    output.

    They are found in autograd's graph, where the path from an output back to its weights is explicit. It is so even
    when the model also uses an output internally, or adds several layers into one output.
    """
    import torch

    owners = {id(module.weight): name for name, module in model.named_modules() if _is_layer(module)}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad(), _described(model, "a forward pass before pruning"):
            outputs = flat_tensors(call(model, inputs))
        found = {name: None for output in outputs for name in _nearest_layers(output.grad_fn, owners)}
    finally:
        for parameter, wanted in flags:
            parameter.requires_grad_(wanted)
    return tuple(found)


def _nearest_layers(start: Any, owners: Mapping[int, str]) -> Iterator[str]:
    """Walk back from one output's gradient function, and stop at the first kernel on each path."""
    pending, seen = [start], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        layers = [owners[key] for key in _leaf_ids(parents) if key in owners]
        if layers:
            yield from layers
        else:
            pending.extend(parents)


def _leaf_ids(parents: Sequence[Any]) -> Iterator[int]:
    """Identities of the parameters right at a gradient function; a linear layer's weight sits behind a transpose."""
    for parent in parents:
        if hasattr(parent, "variable"):
            yield id(parent.variable)
        elif parent.name() == "TBackward0":
            yield from _leaf_ids([grand for grand, _ in parent.next_functions if grand is not None])


def _cut(
    model: nn.Module,
    inputs: Any,
    width: float,
    kept: Sequence[str],
    shares: Mapping[str, Share] | None = None,
    widths: Mapping[str, int] | None = None,
) -> None:
    """Prune in place; ``shares`` say of the layers they name what stays instead of ``width``, and ``widths`` how a group is
    divided that several layers write parts of. Raises ``Unsupported`` with torch-pruning's reason."""
    with _pruner(model, inputs, width, kept, {**_least(model, width), **(shares or {})}, widths or {}) as pruner:
        pruner.step()
    model.zero_grad(set_to_none=True)


def _least(model: nn.Module, width: float) -> dict[str, Share]:
    """Of layers that would be left without a channel, what they keep at least: torch-pruning takes nothing from a layer that
    it would have to take everything from, so that a narrower network had wider layers."""
    left = 1.0 - (1.0 - width)  # as torch-pruning has it: of 40 channels a tenth is 3 there
    return {
        name: share_of(CHANNEL_MULTIPLE, channels)
        for name, channels in channel_widths(model).items()
        if int(channels * left) < CHANNEL_MULTIPLE < channels
    }


def _groups(model: nn.Module, inputs: Any, kept: Sequence[str]) -> list[tuple[str, ...]]:
    """Names of the layers that have to lose the same channels, in groups."""
    twin = copied(model)
    names = {module: name for name, module in twin.named_modules() if _is_layer(module)}
    with _pruner(twin, inputs, 1.0, kept) as pruner:
        found = []
        for group in pruner.DG.get_all_groups(pruner.ignored_layers, pruner.root_module_types):
            out = [dep.target.module for dep, _ in group if pruner.DG.is_out_channel_pruning_fn(dep.handler)]
            found.append(tuple({names[module]: None for module in out if module in names}))
    return found


def _spread(
    whole: nn.Module, inputs: Any, kept: Sequence[str], uniform: Mapping[str, int], sensitivity: Sensitivity
) -> dict[str, Share]:
    """What each group keeps, by its first layer, for the cost that the ``uniform`` widths have."""
    twin = copied(whole)
    names = {module: name for name, module in twin.named_modules() if _is_layer(module)}
    with _pruner(twin, inputs, 1.0, kept) as pruner:
        costs = layer_costs(twin, inputs, sensitivity.cost, sensitivity.times)
        groups = channel_groups(pruner, names, sensitivity.gates, costs)
    return spread(groups, costs, uniform, SPREAD_MULTIPLE)


def _broken_by(
    group: Sequence[str], whole: nn.Module, inputs: Any, width: float, shapes: list[tuple[int, ...]]
) -> Sequence[str]:
    """``group``, if the model no longer runs when these layers alone are pruned."""
    twin = copied(whole)
    _cut(twin, inputs, width, [name for name in channel_widths(whole) if name not in group])
    return () if _runs(twin, inputs, shapes) else group


@contextmanager
def _pruner(
    model: nn.Module,
    inputs: Any,
    width: float,
    kept: Sequence[str],
    shares: Mapping[str, Share] = NO_SHARES,
    widths: Mapping[str, int] = NO_WIDTHS,
) -> Iterator[Any]:
    import torch
    import torch_pruning as tp

    layers = dict(model.named_modules())
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # it follows autograd's graph, in which a frozen layer is none
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # about parameters that no layer owns; the shape check decides
            with _as_one_operator(model):
                pruner = tp.pruner.BasePruner(
                    model,
                    inputs,
                    importance=importance(
                        {layers[name]: share for name, share in shares.items()},
                        {layers[name]: count for name, count in widths.items()},
                    ),
                    pruning_ratio=1.0 - width,
                    pruning_ratio_dict={layers[name]: 1.0 - share.kept for name, share in shares.items()},
                    ignored_layers=[layers[name] for name in kept],
                    round_to=CHANNEL_MULTIPLE,
                    forward_fn=lambda module, given: [
                        tensor for tensor in flat_tensors(call(module, given)) if tensor.grad_fn is not None
                    ],
                )
            yield pruner
    except Exception as exc:  # it raises whatever its tracing of a foreign forward runs into
        raise Unsupported(
            f"pruning to width {width:g}",
            f"torch-pruning cannot follow {type(model).__name__}: {type(exc).__name__}: {first_line(exc)}",
            "Search width = 1 for this architecture",
        ) from exc


@contextmanager
def _as_one_operator(model: nn.Module) -> Iterator[None]:
    """Instance norms and PReLUs that autograd sees as one operator each, for torch-pruning's tracing: it does not follow the
    reshapes inside them (its answer is "'int' and 'NoneType'"). Only the connections count there, not the values."""
    from torch import nn

    kinds = nn.modules.instancenorm._InstanceNorm, nn.PReLU
    found = [module for module in model.modules() if isinstance(module, kinds)]
    for module in found:
        vars(module)["forward"] = lambda values: 1.0 * values
    try:
        yield
    finally:
        for module in found:
            del vars(module)["forward"]


def _runs(model: nn.Module, inputs: Any, shapes: list[tuple[int, ...]]) -> bool:
    try:
        return _output_shapes(model, inputs, 0.0) == shapes
    except Unsupported:
        return False


def _output_shapes(model: nn.Module, inputs: Any, width: float) -> list[tuple[int, ...]]:
    """Raises ``Unsupported`` naming the module that no longer runs."""
    import torch

    with torch.inference_mode(), _described(model, f"a forward pass around pruning to width {width:g}"):
        return [tuple(tensor.shape) for tensor in flat_tensors(call(model, inputs))]


@contextmanager
def _described(model: nn.Module, asked: str) -> Iterator[None]:
    trail = Trail(model)
    try:
        with trail:
            yield
    except Unsupported:
        raise
    except Exception as exc:  # a foreign forward may raise anything
        found = f"in {trail.where()}: {type(exc).__name__}: {first_line(exc)}"
        raise Unsupported(asked, found, "Search width = 1 for this model") from exc


def _named(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    known = dict(model.named_modules())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SpecError(
            "layers to protect", f"the model has no {unknown[0]!r}", f"Known: {', '.join(filter(None, known))}"
        )
    return [known[name] for name in names]


def _is_layer(module: Any) -> bool:
    from torch import nn

    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def outputs_of(module: Any, shape: Sequence[int]) -> int:
    """Output channels of a layer of ``module``'s kind whose weight has this shape."""
    from torch import nn

    if isinstance(module, nn.modules.conv._ConvTransposeNd) and not module.groups == module.in_channels > 1:
        return shape[1] * module.groups
    return shape[0]


def _width(module: Any) -> int:
    return int(module.out_features if hasattr(module, "out_features") else module.out_channels)
