"""One network that is trained at several widths and depths at once, so that each is cut out of it without a training of
its own.

A step is a sandwich (Yu and Huang, "Universally Slimmable Networks", 2019): the whole network learns from the labels; the
smallest cut and some others learn from the labels and from what the whole network has just answered. They share weights.

This module needs torch: import it inside functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from edgedeploy.compress.distillation import distillation
from edgedeploy.compress.oversight import ALONE, Oversight
from edgedeploy.compress.prune import channel_widths
from edgedeploy.compress.recalibration import recalibrate
from edgedeploy.compress.shrink.depth import Skip, without
from edgedeploy.compress.training import fit
from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.task import Recoverable, TrainRecipe
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.calling import call, map_tensors, takes_keywords
from edgedeploy.reference.copies import copied

OTHERS: Final = 2
"""Cuts besides the smallest that learn in a step."""

COUNTED: Final = 2**24
"""float32 counts so far without a gap, and so many numbers one tensor may have."""


ASKED: Final = "an elastic network"
REMEDY: Final = "train this network at each width, without elastic_epochs"


@dataclass(frozen=True)
class Cut:
    """A smaller ``model``, and for each of its parameters that lost channels where its numbers stand in the whole network's.
    The others are the whole network's as they are."""

    model: nn.Module
    places: Mapping[str, torch.Tensor]

    @property
    def choice(self) -> str:
        """A digest of which channels and blocks it has: what decides is sums, whose last bits can differ between runs."""
        found = hashlib.sha256()
        for name, _ in self.model.named_parameters():
            found.update(self.places[name].numpy().tobytes() if name in self.places else name.encode())
        return found.hexdigest()

    def weights(self, whole: nn.Module) -> dict[str, torch.Tensor]:
        """Its parameters, read from ``whole``: gradients go back there."""
        given = dict(whole.named_parameters(remove_duplicate=False))  # a shared one's first name may be a lost block's
        return {
            name: given[name].flatten()[self.places[name]].view(own.shape) if name in self.places else given[name]
            for name, own in self.model.named_parameters()
        }


def cut_of(whole: nn.Module, prune: Callable[[nn.Module], nn.Module]) -> Cut:
    """The cut that ``prune`` makes. It has to choose the same channels whatever the weights are, as pruning by a given
    sensitivity does; raises ``Unsupported`` otherwise."""
    counted = copied(whole)
    for tensor in counted.parameters():
        if tensor.numel() > COUNTED:
            found = f"a tensor of {tensor.numel()} numbers"
            raise Unsupported(ASKED, found, f"At most {COUNTED}: {REMEDY}")
        tensor.data = torch.arange(tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
    model, numbers = prune(whole), dict(prune(counted).named_parameters())
    cut = Cut(model, {name: value.detach().long().flatten() for name, value in numbers.items()})
    alike = all(numbers[name].shape == value.shape for name, value in model.named_parameters())
    read = cut.weights(whole) if alike else {}
    if not alike or not all(torch.equal(value, read[name]) for name, value in model.named_parameters()):
        found = "pruning chooses other channels when the weights change"
        raise Unsupported(ASKED, found, REMEDY[0].upper() + REMEDY[1:])
    return cut


def shallower(whole: nn.Module, blocks: Mapping[str, Skip]) -> Cut:
    """The cut without these blocks; what is left of the network is all its own."""
    return Cut(without(whole, blocks), {})


def train_elastic(
    whole: nn.Module,
    task: Recoverable,
    recipe: TrainRecipe,
    cuts: Sequence[Cut],
    *,
    arch: Mapping[str, Scalar],
    oversight: Oversight = ALONE,
) -> nn.Module:
    """Train ``whole`` in place, such that each of ``cuts``, the smallest first, is a trained network; in evaluation mode.

    The recipe's ``distill_weight`` is the share of a cut's loss that follows the whole network. Checkpoints, the time's end
    and errors are those of :func:`edgedeploy.compress.training.fit`.
    """
    widths = [sorted(channel_widths(cut.model).items()) for cut in cuts]
    elastic = _Elastic(whole, cuts)
    sandwich = _Sandwich(task, recipe.distill_weight)
    settings = {"cuts": widths, "choices": [cut.choice for cut in cuts]}
    fit(elastic, sandwich, recipe, arch=arch, oversight=oversight, settings=settings)
    return whole


def cut_out(
    cut: Cut, whole: nn.Module, task: Recoverable, arch: Mapping[str, Scalar], batches: int, seed: int
) -> nn.Module:
    """The model of a cut with the whole network's weights, its batch norms measured anew; it shares nothing."""
    model: nn.Module = copied(cut.model)
    with torch.no_grad():
        for name, value in cut.weights(whole).items():
            model.get_parameter(name).copy_(value)
    return recalibrate(model, task, arch, batches, seed)


class _Elastic(nn.Module):
    """In training, answers with what the whole network and the cuts of this step say."""

    def __init__(self, whole: nn.Module, cuts: Sequence[Cut]) -> None:
        super().__init__()
        self.whole = whole
        self._cuts = tuple(cuts)  # no parameters of their own: not among the modules

    def train(self, mode: bool = True) -> _Elastic:
        for cut in self._cuts:
            cut.model.train(mode)
        return super().train(mode)

    def forward(self, *args: Any, **named: Any) -> Any:
        inputs = named or args
        answer = call(self.whole, inputs)
        if not self.training:
            return answer
        chosen = [0, *(1 + torch.randperm(len(self._cuts) - 1)[:OTHERS]).tolist()]
        return answer, [self._answer(self._cuts[index], inputs) for index in chosen]

    def _answer(self, cut: Cut, inputs: Any) -> Any:
        weights = cut.weights(self.whole)
        if isinstance(inputs, Mapping) and takes_keywords(cut.model, tuple(inputs)):
            return torch.func.functional_call(cut.model, weights, (), dict(inputs))
        values = tuple(inputs.values()) if isinstance(inputs, Mapping) else tuple(inputs)
        return torch.func.functional_call(cut.model, weights, values)


class _Sandwich:
    """The task of an elastic network: its loss is the whole network's and that of the step's cuts."""

    def __init__(self, task: Recoverable, distill_weight: float) -> None:
        self._task = task
        self._weight = distill_weight
        self.recovery_recipe = task.recovery_recipe

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        return self._task.batches(seed, batch_size, **arch)

    def loss(self, outputs: Any, target: Any) -> Any:
        whole, cuts = outputs
        wanted = map_tensors(whole, lambda tensor: tensor.detach())
        total = self._task.loss(whole, target)
        for cut in cuts:
            total = total + (1 - self._weight) * self._task.loss(cut, target)
            total = total + self._weight * distillation(cut, wanted) if self._weight else total
        return total
