"""A model's layers as :mod:`edgedeploy.compress.allocation` sees them: what they cost, and which of their channels go
together, read from torch-pruning's dependency graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.compress.allocation import ChannelGroup, LayerCost, Share
from edgedeploy.errors import Unsupported
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.variant import Allocation
from edgedeploy.reference.calling import call

if TYPE_CHECKING:
    import torch
    from torch import nn

LEAST: Final = 8
"""Channels that a layer keeps at least, if it has as many. Few save nothing: kernels compute eight or sixteen at a time. And
what a bottleneck loses comes back nowhere: on the demo's U-Net at .75 by multiplications, Dice without training is 0.66, and
0.56 with four as the least."""


def layer_costs(
    model: nn.Module, inputs: Any, cost: Allocation, times: LayerTimes | None = None
) -> dict[str, LayerCost]:
    """Convolutions and linear layers that a forward pass runs, by name: multiplications, bytes of float32 weights, or
    nanoseconds by ``times``."""
    import torch

    positions = _positions(model, inputs)
    found = {}
    for name, module in model.named_modules():
        if name not in positions:
            continue
        weight = module.weight
        multiplications = weight.numel() * positions[name]
        if cost == "time":
            if times is None:
                raise Unsupported("widths by time", "no layer times are known", 'Search allocation = ["compute"]')
            unit = times.ns(name, multiplications)
        else:
            unit = float(multiplications if cost == "compute" else weight.numel() * weight.element_size())
        linear = isinstance(module, torch.nn.Linear)
        before = module.in_features if linear else module.in_channels
        after = module.out_features if linear else module.out_channels
        found[name] = LayerCost(before, after, unit, depthwise=not linear and module.groups == before > 1)
    return found


def _positions(model: nn.Module, inputs: Any) -> dict[str, int]:
    """How often a layer's kernel is used in one forward pass."""
    import torch
    from torch import nn

    found: dict[str, int] = defaultdict(int)

    def count(name: str) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> None:
            if isinstance(module, nn.Linear):
                found[name] += output.numel() // module.out_features
            elif isinstance(module, nn.modules.conv._ConvTransposeNd):
                found[name] += args[0].numel() // module.in_channels
            else:
                found[name] += output.numel() // module.out_channels

        return hook

    kinds = nn.modules.conv._ConvNd, nn.Linear
    handles = [m.register_forward_hook(count(name)) for name, m in model.named_modules() if isinstance(m, kinds)]
    try:
        with torch.no_grad():
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return dict(found)


def channel_groups(
    pruner: Any, names: Mapping[Any, str], gates: Mapping[str, torch.Tensor], costs: Mapping[str, LayerCost]
) -> dict[str, ChannelGroup]:
    """Groups of a torch-pruning pruner whose channels are weighed, by their first layer.

    Left out, and so pruned to the uniform width, are those in which whole sets of channels belong together (grouped
    convolutions, attention heads) and those that no layer with a gate reads.
    """
    graph = pruner.DG
    found = {}
    for group in graph.get_all_groups(pruner.ignored_layers, pruner.root_module_types):
        first = names[group[0].dep.target.module]
        channels = len(group[0].idxs)
        if pruner._get_channel_groups(group) > 1 or pruner._is_atten_group(group)[0]:
            continue
        reads: dict[str, float] = {}
        writes: dict[str, float] = {}
        summed: torch.Tensor | None = None
        for item in group:
            name = names.get(item.dep.target.module)
            if name is None or name not in costs:
                continue
            if graph.is_out_channel_pruning_fn(item.dep.handler):
                writes[name] = len(item.idxs) / channels
            else:
                reads[name] = len(item.idxs) / channels
                if name in gates:
                    one = gates[name].new_zeros(len(gates[name]), channels)
                    one.index_add_(1, gates[name].new_tensor(item.root_idxs).long(), gates[name][:, item.idxs])
                    summed = one if summed is None else summed + one
        if summed is None:
            continue
        # Three digits, so that the last bits of parallel sums decide nothing.
        weights = tuple(float(f"{value:.3g}") for value in summed.square().mean(0).tolist())
        found[first] = ChannelGroup(channels, reads, writes, weights, min(LEAST, channels))
    return found


def importance(shares: Mapping[Any, Share], widths: Mapping[Any, int]) -> Callable[[Any], torch.Tensor | None]:
    """The importance of a group's channels for torch-pruning: what its share says, else the L2 magnitude of its weights.
    Where layers write parts of a group (a depthwise layer reads them concatenated), those in ``widths`` keep so many."""
    import torch
    import torch_pruning as tp

    magnitude = tp.importance.GroupMagnitudeImportance(p=2)

    def of(group: Any) -> torch.Tensor | None:
        share = shares.get(group[0].dep.target.module)
        given = share.importance if share is not None else ()
        found: Any = torch.tensor(given) if given else magnitude(group)
        return found if found is None else _in_parts(found, group, widths)

    return of


def _in_parts(found: torch.Tensor, group: Any, widths: Mapping[Any, int]) -> torch.Tensor:
    """``found`` with the most important channels of each part before all others, as many as its layer keeps."""
    told = found.clone()
    for item in group:
        kept = widths.get(item.dep.target.module)
        writes = group._DG.is_out_channel_pruning_fn(item.dep.handler)
        if kept is None or not writes or len(item.idxs) >= len(group[0].idxs):
            continue
        part = found.new_tensor(item.root_idxs).long()
        first = part[found[part].argsort(descending=True, stable=True)[:kept]]
        told[first] = found[first] + found.max() + 1.0
    return told
