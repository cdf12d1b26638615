"""Structured pruning removes whole channels: every runtime gets a smaller dense network and needs no sparse kernels.

torch-pruning's dependency graph finds which channels of which layers have to go together (skips, concatenations, batch
norms, transposed convolutions). The least important go first, by their group's L2 magnitude, in each group alike.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.errors import BuildError, SpecError, Unsupported

if TYPE_CHECKING:
    import torch
    from torch import nn

CHANNEL_MULTIPLE: Final = 4
"""Widths are rounded down to a multiple of this, and are at least this. int8 dot-product instructions (VNNI, SDOT) sum
four input channels in one 32-bit lane, so another width is padded to the next multiple of four and costs as much.
Measured on the 16-channel UNet at 128 x 128 (ONNX Runtime float32, a busy machine): 16 channels 41 ms, 14: 47, 12: 33,
10: 35, 8:
17. With multiples of eight, a 16-channel layer, the most expensive one of a UNet, could only be halved."""


def prune(
    model: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    width: float,
    *,
    protect: Sequence[str] = (),
) -> nn.Module:
    """A pruned copy of ``model`` in eval mode that keeps the share ``width`` (0 < width <= 1) of every layer's channels,
    rounded down to a multiple of ``CHANNEL_MULTIPLE``; at width 1, an untouched copy.

    ``example_inputs`` are the model's positional inputs with batch size 1. Two kinds of layers keep their channels:
    those that produce the outputs (found by walking back from the outputs, not by name) and those named in ``protect``.
    Input channels and output shapes do not change. Nothing is random: equal weights give equal networks.

    Raises ``SpecError`` for a width out of range or an unknown name in ``protect``, ``Unsupported`` when there is nothing
    to prune at this width or torch-pruning cannot follow the model.
    """
    if not 0.0 < width <= 1.0:
        raise SpecError("width", f"found {width}", "It is the share of channels to keep: above 0, at most 1")
    copied: nn.Module = copy.deepcopy(model).eval()
    if width == 1.0:
        return copied
    inputs = tuple(tensor.detach().clone() for tensor in example_inputs)
    kept = [*output_layers(copied, inputs), *_named(copied, protect)]
    before = channel_widths(copied)
    shapes = _output_shapes(copied, inputs)
    _cut(copied, inputs, width, kept)
    after = channel_widths(copied)
    if after == before:
        raise Unsupported(
            f"pruning to width {width:g}",
            f"no layer got narrower (widths {sorted(set(before.values()))}, in steps of {CHANNEL_MULTIPLE})",
            "Search a smaller width",
        )
    found = _output_shapes(copied, inputs)
    if found != shapes:
        raise BuildError(f"output shapes {shapes} after pruning to width {width:g}", f"{found}", "Protect these layers")
    return copied


def channel_widths(model: nn.Module) -> dict[str, int]:
    """Output channels (convolutions) or features (linear layers) by module name."""
    return {name: int(_width(module)) for name, module in model.named_modules() if _is_layer(module)}


def output_layers(model: nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[nn.Module, ...]:
    """The last convolutions and linear layers before each output: no other such layer lies between them and the output.

    They are found in autograd's graph, where the path from an output back to its weights is explicit. It is so even
    when the model also uses an output internally, or adds several layers into one output.
    """
    import torch

    owners = {id(module.weight): module for module in model.modules() if _is_layer(module)}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            outputs = list(_tensors(model(*inputs)))
        found = {id(layer): layer for output in outputs for layer in _nearest_layers(output.grad_fn, owners)}
    finally:
        for parameter, wanted in flags:
            parameter.requires_grad_(wanted)
    return tuple(found.values())


def _nearest_layers(start: Any, owners: Mapping[int, nn.Module]) -> Iterator[nn.Module]:
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


def _cut(model: nn.Module, inputs: tuple[torch.Tensor, ...], width: float, kept: Sequence[nn.Module]) -> None:
    """Prune in place. Raises ``Unsupported`` with torch-pruning's reason."""
    import torch
    import torch_pruning as tp

    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # about parameters that no layer owns; the shape check below decides
            pruner = tp.pruner.BasePruner(
                model,
                inputs,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=1.0 - width,
                ignored_layers=list(kept),
                round_to=CHANNEL_MULTIPLE,
            )
            pruner.step()
    except Exception as exc:  # it raises whatever its tracing of a foreign forward runs into
        raise Unsupported(
            f"pruning to width {width:g}",
            f"{type(exc).__name__}: {exc}"[:400],
            "Search width = 1 for this architecture",
        ) from exc
    model.zero_grad(set_to_none=True)


def _output_shapes(model: nn.Module, inputs: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """Raises ``Unsupported`` when a pruned model no longer runs."""
    import torch

    try:
        with torch.inference_mode():
            return [tuple(tensor.shape) for tensor in _tensors(model(*inputs))]
    except RuntimeError as exc:
        raise Unsupported("a forward pass around pruning", str(exc)[:400], "Search width = 1 for this model") from exc


def _named(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    known = dict(model.named_modules())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SpecError(
            "layers to protect", f"the model has no {unknown[0]!r}", f"Known: {', '.join(filter(None, known))}"
        )
    return [known[name] for name in names]


def _tensors(outputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(outputs, Mapping):
        outputs = tuple(outputs.values())
    if isinstance(outputs, list | tuple):
        for item in outputs:
            yield from _tensors(item)
    else:
        yield outputs


def _is_layer(module: Any) -> bool:
    from torch import nn

    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def _width(module: Any) -> int:
    return int(module.out_features if hasattr(module, "out_features") else module.out_channels)
