"""The memory layout in which a network trains: ``channels_last``, but for layers that oneDNN computes wrongly in it.

On processors with AVX2 and without AVX-512, oneDNN 3.12 (torch 2.13) writes beyond its memory where it computes the gradient
of the weights of a convolution of 1 x 1 pixels that skips pixels and has fewer than 8 input channels, in this layout alone:
the process dies at some later moment. Such layers come of small networks, and of pruning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from edgedeploy.compress.batch import channels_last

LEAST_CHANNELS: Final = 8
"""What one AVX2 register holds of float32. From so many input channels on, the gradients are right."""


@contextmanager
def laid_out(model: Any) -> Iterator[None]:
    """Lay the model's tensors out as ``channels_last``, in place; convolutions are at least 1.3 times faster in it. In the
    block, the layers that must not have it get their inputs and weights in the default layout."""
    spared = (module for module in model.modules() if not bears_channels_last(module))
    apart = {id(tensor) for module in spared for tensor in module.parameters(recurse=False)}
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = _in_default_layout(tensor.data) if id(tensor) in apart else channels_last(tensor.data)
    with sparing(model):
        yield


@contextmanager
def sparing(model: Any) -> Iterator[None]:
    """Gradients of a model in the default layout, whose inputs are ``channels_last``: in the block, what the layers get that
    must not have it is laid out anew."""
    spared = [module for module in model.modules() if not bears_channels_last(module)]
    hooks = [module.register_forward_pre_hook(_given_in_default_layout) for module in spared]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def bears_channels_last(module: Any) -> bool:
    import torch

    if not isinstance(module, torch.nn.Conv2d):
        return True
    skips = max(module.kernel_size) == 1 < max(module.stride)
    return not skips or module.in_channels >= LEAST_CHANNELS


def _given_in_default_layout(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    image, *others = given
    return (_in_default_layout(image), *others)


def _in_default_layout(tensor: Any) -> Any:
    """A copy, because ``contiguous()`` leaves the strides of an image of one pixel as they are."""
    import torch

    return tensor.clone(memory_format=torch.contiguous_format)


def contiguous(model: Any) -> None:
    """Give every tensor its default memory layout again: exporters and converters need not handle ``channels_last``."""
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = _in_default_layout(tensor.data)
