"""Fewer attention heads: those stay that add most to the layer's output, and the layer's last weights are fitted to them.

The importance of a head is the mean squared norm of what it adds to the output over the calibration cases, about its mean.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

import torch
from torch import nn

from edgedeploy.compress.shrink.attention import Attention, head_columns
from edgedeploy.compress.shrink.given import Given, at_least, refused
from edgedeploy.compress.shrink.moments import Moment, in_passes, refitted
from edgedeploy.compress.shrink.parts import attentions_of


def fewer_heads(model: nn.Module, share: float, given: Given) -> None:
    """Keep the ``share`` of every self-attention layer's heads, rounded down, and at least one."""
    names = with_own_heads(model, given)
    if not names:
        raise refused("heads", "no layer of the network is softmax self-attention as far as its answers tell")
    if all(_layer(model, name).heads == 1 for name in names):
        raise refused("heads", f"each of its {len(names)} attention layers has one head")
    for part in in_passes(model, [f"{name}.proj" for name in names]):
        moments = given.moments(model, part)
        for name in part:
            _keep(_layer(model, name.removesuffix(".proj")), share, moments.get(name))


def with_own_heads(model: nn.Module, given: Given) -> list[str]:
    """Put an :class:`Attention` that answers the same in the place of every self-attention layer; returns their names."""
    found = {name: made for name, made in attentions_of(model, given.inputs).items() if name}
    kept = {name: layer for name, layer in model.named_modules() if name and isinstance(layer, Attention)}
    for name, made in found.items():
        if name not in kept:
            model.set_submodule(name, made)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # which reads the weights of nn.MultiheadAttention
    return list({**kept, **found})


def _layer(model: nn.Module, name: str) -> Attention:
    layer = model.get_submodule(name)
    assert isinstance(layer, Attention)
    return layer


def _keep(layer: Attention, share: float, moment: Moment | None) -> None:
    count = at_least(share, layer.heads)
    if count == layer.heads:
        return
    kept = list(range(count)) if moment is None else _best(layer, moment, count)
    layer.keep_heads(kept, *refitted(layer.proj, moment, head_columns(kept, layer.size)))


def _best(layer: Attention, moment: Moment, count: int) -> list[int]:
    spread = moment.spread(layer.proj.bias is not None)
    weight = layer.proj.weight.detach().double()
    adds = []
    for head in range(layer.heads):
        at = torch.tensor(head_columns([head], layer.size))
        adds.append(float((weight[:, at] @ spread[at][:, at] * weight[:, at]).sum()))
    return sorted(sorted(range(layer.heads), key=lambda head: -adds[head])[:count])
