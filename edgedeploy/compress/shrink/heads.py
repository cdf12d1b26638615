"""Fewer attention heads: those stay that add most to the layer's output, and the layer's last weights are fitted to them.

The importance of a head is the mean squared norm of what it adds to the output over the calibration cases, about its mean.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

import torch
from torch import nn

from edgedeploy.compress.shrink.attention import Attention, head_columns, linear_like
from edgedeploy.compress.shrink.given import Given, at_least, refused
from edgedeploy.compress.shrink.moments import Moment, in_passes, refitted
from edgedeploy.compress.shrink.parts import attentions_of, calls_of, first_of


def fewer_heads(model: nn.Module, share: float, given: Given) -> None:
    """Keep the ``share`` of every self-attention layer's heads, rounded down, and at least one."""
    names = with_own_heads(model, given)
    if not names:
        raise refused("heads", "no layer of the network is softmax self-attention as far as its answers tell")
    if all(_layer(model, name).heads == 1 for name in names):
        raise refused("heads", f"each of its {len(names)} attention layers has one head")
    last = _last_layers(model, names, given)
    if not last:
        raise refused("heads", "what its attention layers answer is not read by one linear layer")
    for part in in_passes(model, list(last)):
        moments = given.moments(model, part)
        for name in part:
            _keep(model, _layer(model, last[name]), name, share, moments.get(name))


def _last_layers(model: nn.Module, names: list[str], given: Given) -> dict[str, str]:
    """By the name of the linear layer that alone reads an attention layer's heads, that layer's name."""
    own = {name for name in names if isinstance(_layer(model, name).proj, nn.Linear)}
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    calls = calls_of(model, given.inputs, [*names, *linears] if len(own) < len(names) else [])
    found = {f"{name}.proj": name for name in own}
    for name in [name for name in names if name not in own and name in calls]:
        mixed = first_of(calls[name][0].answer)
        readers = [linear for linear in linears if any(seen.args[0] is mixed for seen in calls.get(linear, ()))]
        found |= {readers[0]: name} if len(readers) == 1 else {}
    return found


def with_own_heads(model: nn.Module, given: Given) -> list[str]:
    """Put an :class:`Attention` that answers the same in the place of every self-attention layer; returns their names."""
    found = {name: made for name, made in attentions_of(model, given.inputs).items() if name}
    kept = {name: layer for name, layer in model.named_modules() if name and isinstance(layer, Attention)}
    everywhere = list(model.named_modules(remove_duplicate=False))  # blocks may share one layer
    for name, made in found.items():
        if name not in kept:
            before = model.get_submodule(name)
            for place in [place for place, module in everywhere if module is before]:
                model.set_submodule(place, made)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # which reads the weights of nn.MultiheadAttention
    return list({**kept, **found})


def _layer(model: nn.Module, name: str) -> Attention:
    layer = model.get_submodule(name)
    assert isinstance(layer, Attention)
    return layer


def _keep(model: nn.Module, layer: Attention, last: str, share: float, moment: Moment | None) -> None:
    count = at_least(share, layer.heads)
    if count == layer.heads:
        return
    read = model.get_submodule(last)
    assert isinstance(read, nn.Linear)
    kept = list(range(count)) if moment is None else _best(layer, read, moment, count)
    fitted = refitted(read, moment, head_columns(kept, layer.size))
    layer.keep_heads(kept)
    model.set_submodule(last, linear_like(read, *fitted))


def _best(layer: Attention, last: nn.Linear, moment: Moment, count: int) -> list[int]:
    spread = moment.spread(last.bias is not None)
    weight = last.weight.detach().double()
    adds = []
    for head in range(layer.heads):
        at = torch.tensor(head_columns([head], layer.size))
        adds.append(float((weight[:, at] @ spread[at][:, at] * weight[:, at]).sum()))
    return sorted(sorted(range(layer.heads), key=lambda head: -adds[head])[:count])
