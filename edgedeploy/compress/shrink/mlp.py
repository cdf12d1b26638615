"""Narrower MLPs: of the features between two linear layers, those stay that move the second one's outputs most.

torch-pruning's dependency graph says which features only two linear layers share. What the lost ones said is put into the
second layer's weights and bias as far as the others say it too.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import torch
from torch import nn

from edgedeploy.compress.shrink.given import Given, at_least, refused
from edgedeploy.compress.shrink.moments import Moment, in_passes, refitted, weighed
from edgedeploy.errors import Unsupported
from edgedeploy.reference.calling import call, flat_tensors
from edgedeploy.reference.translate import first_line

STEP: Final = 4
"""Features are kept in multiples of this, as channels are (:mod:`edgedeploy.compress.prune`)."""


def narrower_mlps(model: nn.Module, share: float, given: Given) -> None:
    """Keep the ``share`` of every MLP's hidden features, rounded down to a multiple of ``STEP``."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(True)  # the graph is read from autograd's
    try:
        graph = _graph(model, given.inputs)
        pairs = _pairs(model, graph)
    finally:
        for parameter, wanted in flags:
            parameter.requires_grad_(wanted)
    narrowed = 0
    for part in in_passes(model, list(pairs)):
        moments = given.moments(model, part)
        for name in part:
            narrowed += _keep(graph, pairs[name], model.get_submodule(name), share, moments.get(name))
    if not narrowed:
        found = f"{len(pairs)} MLPs with so few features" if pairs else "no features that two linear layers alone share"
        raise refused("mlp", f"the network has {found}")


def _graph(model: nn.Module, inputs: Any) -> Any:
    import torch_pruning as tp

    def run(module: nn.Module, given: Any) -> list[torch.Tensor]:
        return [tensor for tensor in flat_tensors(call(module, given)) if tensor.grad_fn is not None]

    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # about parameters that no layer owns: those are left alone
            return tp.DependencyGraph().build_dependency(model, inputs, forward_fn=run)
    except Exception as exc:  # it raises whatever its tracing of a foreign forward runs into
        found = f"torch-pruning cannot follow {type(model).__name__}: {type(exc).__name__}: {first_line(exc)}"
        raise Unsupported("narrower MLPs", found, "Leave `mlp` out of the space, or at 1") from exc


def _pairs(model: nn.Module, graph: Any) -> dict[str, nn.Linear]:
    """By the name of each MLP's second layer, the first one."""
    import torch_pruning as tp

    names = {module: name for name, module in model.named_modules()}
    found = {}
    for first in [module for module in names if isinstance(module, nn.Linear) and module in graph.module2node]:
        group = graph.get_pruning_group(first, tp.prune_linear_out_channels, idxs=[0])
        touched = dict.fromkeys(dep.target.module for dep, _ in group)
        holders = [one for one in touched if isinstance(one, nn.Parameter) or any(True for _ in one.parameters())]
        if len(holders) != 2 or holders[0] is not first or not isinstance(holders[1], nn.Linear):
            continue
        if holders[1].in_features == first.out_features:
            found[names[holders[1]]] = first
    return found


def _keep(graph: Any, first: nn.Linear, second: nn.Module, share: float, moment: Moment | None) -> bool:
    import torch_pruning as tp

    assert isinstance(second, nn.Linear)
    whole = first.out_features
    count = at_least(share, whole, STEP)
    if count == whole:
        return False
    order = range(whole) if moment is None else weighed(second, moment).argsort(descending=True, stable=True).tolist()
    kept = sorted(list(order)[:count])
    weight, bias = refitted(second, moment, kept)
    lost = sorted({*range(whole)} - {*kept})
    flags = [parameter.requires_grad for parameter in (*first.parameters(), *second.parameters())]
    graph.get_pruning_group(first, tp.prune_linear_out_channels, idxs=lost).prune()
    with torch.no_grad():
        second.weight.copy_(weight)
        if bias is not None:
            second.bias.copy_(bias)
    for parameter, wanted in zip((*first.parameters(), *second.parameters()), flags, strict=True):
        parameter.requires_grad_(wanted)
    return True
