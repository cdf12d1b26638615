"""Batch norms before weights are packed: what one multiplies by goes into the layer before it.

Then a batch norm is a bias, and three of its four arrays are constants, which cost nothing. Errors of the layer's weights
are then those of what the network goes on with, so one step suits all channels better.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from edgedeploy.reference.calling import call, named_tensors
from edgedeploy.reference.copies import copied

if TYPE_CHECKING:
    from torch import nn

TOLERANCE: Final = 1e-3
"""Of the outputs' largest value, between the network with its own batch norms and with folded ones."""


def folded(model: nn.Module, inputs: Any) -> nn.Module:
    """A copy whose batch norms behind a convolution or linear layer of the same ``nn.Sequential`` only add. Where the copy
    does not answer as ``model`` does, which may call such layers in another order, a copy as it is."""
    import torch

    twin: nn.Module = copied(model).eval()
    with torch.no_grad():
        for layer, norm in _pairs(twin):
            _fold(layer, norm)
        before, after = (named_tensors(call(one, inputs)) for one in (model.eval(), twin))
        for name, tensor in before.items():
            largest = float(tensor.abs().max()) if tensor.is_floating_point() else 0.0
            if largest and not float((after[name] - tensor).abs().max()) <= TOLERANCE * largest:
                untouched: nn.Module = copied(model)
                return untouched.eval()
    return twin


def _pairs(model: nn.Module) -> Iterator[tuple[Any, Any]]:
    from torch import nn

    layers, kind = (nn.modules.conv._ConvNd, nn.Linear), nn.modules.batchnorm._BatchNorm
    for parent in model.modules():
        if not isinstance(parent, nn.Sequential):
            continue
        for layer, norm in pairwise(parent.children()):
            if isinstance(layer, layers) and isinstance(norm, kind) and norm.running_mean is not None and norm.affine:
                yield layer, norm


def _fold(layer: Any, norm: Any) -> None:
    import torch

    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    transposed = getattr(layer, "transposed", False)
    if transposed and layer.groups != 1:
        return
    shape = [1] * layer.weight.ndim
    shape[1 if transposed else 0] = -1
    layer.weight.mul_(scale.reshape(shape))
    inner = 0.0 if layer.bias is None else layer.bias
    norm.bias.add_((inner - norm.running_mean) * scale)
    if layer.bias is not None:
        layer.bias.zero_()
    norm.weight.fill_(1.0)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
