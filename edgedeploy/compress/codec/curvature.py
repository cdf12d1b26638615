"""What an error in a layer's weights costs the network's answer, to second order.

The Fisher information of a layer is taken as the Kronecker product of two small matrices (Martens and Grosse, "Optimizing
Neural Networks with Kronecker-factored Approximate Curvature", 2015): what the layer reads, H = sum over positions of x xT,
and how the answer depends on each of its outputs, G, of which the diagonal is kept. The answer's distribution is the softmax
over axis 1, from which labels are drawn; where there is none, a normal one around the outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgedeploy.compress.layout import sparing
from edgedeploy.reference.calling import call, named_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST_POSITIONS: Final = 2048
"""Of one layer in one batch: neighbours see nearly the same."""

MOST_READ: Final = 8192
"""Numbers that a row of weights multiplies: its matrix is inverted."""


@dataclass
class Curvature:
    """``reads`` is H, (columns, columns); ``outputs`` the diagonal of G, one number a row of the weights' matrix."""

    reads: NDArray[np.float64]
    outputs: NDArray[np.float64]
    batches: int = field(default=0)


def curvatures(model: nn.Module, batches: Iterable[Any], seed: int) -> dict[str, Curvature]:
    """By name, of the layers of ``model`` whose weights are a matrix of rows and columns. ``batches`` are inputs."""
    import torch

    found: dict[str, Curvature] = {}
    total = 0
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), sparing(model), _watched(model, found):
        torch.manual_seed(seed)
        for inputs in batches:
            _surprise(call(model, inputs)).backward()  # type: ignore[no-untyped-call]
            total += 1
    model.zero_grad(set_to_none=True)
    for one in found.values():
        one.reads /= max(1, total)
        one.outputs /= max(1, total)
    return {name: one for name, one in found.items() if one.batches == total}


def _surprise(outputs: Any) -> torch.Tensor:
    """The negative logarithm of the likelihood of an answer that is drawn from the network's own distribution."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    parts = []
    for tensor in named_tensors(outputs).values():
        if not tensor.is_floating_point() or not tensor.requires_grad:
            continue
        if tensor.ndim >= 2 and tensor.shape[1] > 1:
            logits = tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
            labels = torch.multinomial(logits.detach().softmax(1), 1).squeeze(1)
            parts.append(F.cross_entropy(logits, labels, reduction="sum"))
        else:
            parts.append((tensor * torch.randn_like(tensor)).sum())
    return torch.stack(parts).sum()


def matrix_of(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """The weights as (rows, columns): a row makes one output of what the columns read."""
    if getattr(layer, "transposed", False):
        return weight.movedim(0, -1).reshape(-1, weight.shape[0])
    return weight.reshape(len(weight), -1)


def weights_of(layer: Any, matrix: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """What :func:`matrix_of` was made of."""
    if getattr(layer, "transposed", False):
        return matrix.reshape(*shape[1:], shape[0]).movedim(-1, 0)
    return matrix.reshape(shape)


def is_matrix(layer: Any) -> bool:
    """Whether a row of the layer's weights multiplies the same numbers at each position."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        return layer.in_features <= MOST_READ
    if isinstance(layer, nn.ConvTranspose2d):
        plain = layer.kernel_size == layer.stride and layer.groups == 1
        return plain and layer.in_channels <= MOST_READ and layer.padding == layer.output_padding == (0, 0)
    if isinstance(layer, nn.Conv2d):
        reads = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        return layer.groups == 1 and layer.padding_mode == "zeros" and layer.padding != "same" and reads <= MOST_READ
    return False


@contextmanager
def _watched(model: nn.Module, found: dict[str, Curvature]) -> Iterator[None]:
    handles = []
    for name, layer in model.named_modules():
        if is_matrix(layer):
            handles.append(layer.register_forward_hook(_hook(name, layer, found)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, layer: Any, found: dict[str, Curvature]) -> Any:
    def watch(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> None:
        import torch

        with torch.no_grad():
            columns, positions = _reads(layer, args[0].detach())
            matrix = (columns.T @ columns * (positions / len(columns))).double().numpy()
        rows = matrix_of(layer, layer.weight).shape[0]
        one = found.setdefault(name, Curvature(np.zeros_like(matrix), np.zeros(rows)))
        one.reads += matrix
        one.batches += 1

        def told(gradient: torch.Tensor) -> None:
            axis = gradient.ndim - 1 if layer.__class__.__name__ == "Linear" else 1
            others = [place for place in range(gradient.ndim) if place != axis]
            each = gradient.detach().square().mean(others).double().numpy()
            one.outputs += np.repeat(each, rows // len(each))

        output.register_hook(told)  # type: ignore[no-untyped-call]

    return watch


def _reads(layer: Any, given: torch.Tensor) -> tuple[torch.Tensor, int]:
    """What the columns read at some positions, and how many positions there are."""
    import torch
    import torch.nn.functional as F  # noqa: N812
    from torch import nn

    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(
            given,
            layer.kernel_size,
            dilation=layer.dilation,
            padding=layer.padding,  # type: ignore[arg-type]  # is_matrix refuses words
            stride=layer.stride,
        )
        flat = patches.movedim(1, -1).reshape(-1, patches.shape[1])
    elif isinstance(layer, nn.Linear):
        flat = given.reshape(-1, given.shape[-1])
    else:
        flat = given.movedim(1, -1).reshape(-1, given.shape[1])
    if len(flat) <= MOST_POSITIONS:
        return flat, len(flat)
    return flat[torch.randint(len(flat), (MOST_POSITIONS,))], len(flat)
