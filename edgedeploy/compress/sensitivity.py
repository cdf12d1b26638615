"""How much a model's loss depends on each channel that a layer reads: first-order Taylor, channel by channel.

A gate of ones lies on every channel that a convolution or linear layer reads. The gradient of a gate is what the loss would
change, to first order, when the channel is taken away there; of one case it is the sum of activation times gradient over
all positions (Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019). Channels that have to go
together add their gates, and the mean of the squared sum over cases is their importance (Liu et al.,
"Group Fisher Pruning", 2021).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgedeploy.compress.layout import sparing
from edgedeploy.compress.recalibration import training_batches
from edgedeploy.compress.training import users_line
from edgedeploy.interfaces.task import Recoverable
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.calling import call
from edgedeploy.reference.copies import copied

if TYPE_CHECKING:
    import torch
    from torch import nn


def gate_gradients(
    model: nn.Module, task: Recoverable, arch: Mapping[str, Scalar], batches: int, seed: int
) -> dict[str, torch.Tensor]:
    """By layer, the gradient of the task's loss in each case by each channel that the layer reads: (cases, channels).

    ``model`` stays as it is. ``seed`` decides the batches. Left out is a layer that reads
    other than (cases, ...) or (cases x parts, ...), or not in every batch.
    """
    import torch

    twin = _as_trained(copied(model))
    found: dict[str, list[torch.Tensor]] = defaultdict(list)
    seen = 0
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), sparing(twin), _gated(twin) as gates:
        torch.manual_seed(seed)
        for batch in training_batches(task, arch, batches, seed):
            gates.clear()
            asked = f"a forward pass with inputs {batch.shapes}"
            with users_line(asked, "batches() and the model's forward have to fit each other"):
                outputs = call(twin, batch.inputs)
            with users_line(
                "the gradient of the task's loss", "loss() gets what the forward returns, and gives one number"
            ):
                task.loss(outputs, batch.target).backward()
            seen += (cases := len(next(iter(_tensors(batch.inputs)))))
            for name, values in gates.items():
                found[name] += _by_case(values, cases)
    return {name: torch.cat(values) for name, values in found.items() if sum(map(len, values)) == seen}


def _tensors(inputs: Any) -> Iterator[Any]:
    yield from inputs.values() if isinstance(inputs, Mapping) else inputs


def _as_trained(model: nn.Module) -> nn.Module:
    """Outputs as in training mode, batch norms and dropouts as in evaluation mode: these are modules without children."""
    model.train()
    for module in model.modules():
        if not any(True for _ in module.children()):
            module.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@contextmanager
def _gated(model: nn.Module) -> Iterator[dict[str, list[torch.Tensor]]]:
    import torch
    from torch import nn

    gates: dict[str, list[torch.Tensor]] = defaultdict(list)

    def hook(name: str, axis: int) -> Any:
        def gate(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not args or args[0].ndim < 2:
                return None
            value = args[0]
            shape = [1] * value.ndim
            shape[0], shape[axis] = value.shape[0], value.shape[axis]
            ones = torch.ones(shape, dtype=value.dtype, requires_grad=True)
            gates[name].append(ones)
            return (value * ones, *args[1:])

        return gate

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            handles.append(module.register_forward_pre_hook(hook(name, 1)))
        elif isinstance(module, nn.Linear):
            handles.append(module.register_forward_pre_hook(hook(name, -1)))
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _by_case(gates: list[torch.Tensor], cases: int) -> list[torch.Tensor]:
    """The sum over a layer's calls of its gates' gradients, (cases, channels); nothing where the first axis of what it
    reads is not made of the cases."""
    import torch

    found = []
    for gate in gates:
        gradient = torch.zeros_like(gate) if gate.grad is None else gate.grad
        if len(gate) % cases:
            return []
        found.append(gradient.reshape(cases, len(gate) // cases, max(gate.shape[1:])).sum(1))
    return [torch.stack(found).sum(0)]
