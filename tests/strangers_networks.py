"""Networks as other people write them: several inputs, outputs of every structure, modules that Python cannot copy."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from edgedeploy.records.artifact import TensorSpec

IMAGE: Final = (TensorSpec("image", "float32", (1, 1, 16, 16)),)
TWO: Final = (*IMAGE, TensorSpec("age", "float32", (1, 3)))


class Body(nn.Module):
    """A convolutional body with two heads; subclasses say what of it they give."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.mask, self.score = nn.Conv2d(16, 2, 1), nn.Linear(16, 3)

    def heads(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.middle(self.body(image)))
        return self.mask(features), self.score(features.mean((2, 3)))


class InDict(Body):
    def forward(self, image: torch.Tensor) -> Any:
        mask, score = self.heads(image)
        return {"mask": mask, "relu": score}  # a name that the exporter uses inside


class InTuples(Body):
    def forward(self, image: torch.Tensor) -> Any:
        mask, score = self.heads(image)
        return mask, [score, {"twice": 2 * score}], mask.argmax(1)


@dataclass
class Answer:
    mask: torch.Tensor
    score: torch.Tensor
    loss: torch.Tensor | None = None


class InDataclass(Body):
    def forward(self, image: torch.Tensor) -> Any:
        return Answer(*self.heads(image))


class Pair(NamedTuple):
    mask: torch.Tensor
    image: torch.Tensor


class InNamedTuple(Body):
    """An output that has the input's name, and is the input."""

    def forward(self, image: torch.Tensor) -> Any:
        return Pair(self.heads(image)[0], image)


@dataclass
class ModelOutput(OrderedDict[str, Any]):
    """As Hugging Face's models answer: a dict of those fields of a dataclass that are not None."""

    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


class InModelOutput(Body):
    def forward(self, image: torch.Tensor) -> Any:
        mask, score = self.heads(image)
        return ModelOutput(logits=mask, hidden_states=(score, 2 * score))


class TwoInputs(Body):
    def __init__(self) -> None:
        super().__init__()
        self.age = nn.Linear(3, 3)

    def forward(self, image: torch.Tensor, age: torch.Tensor) -> Any:
        mask, score = self.heads(image)
        return {"mask": mask, "score": score + self.age(age)}


class ByKeyword(TwoInputs):
    """Its forward takes the task's inputs elsewhere than at its beginning."""

    def forward(self, age: torch.Tensor | None = None, *, scale: float = 1.0, image: torch.Tensor) -> Any:
        assert age is not None and age.shape[-1] == 3
        return super().forward(scale * image, age)


STRUCTURES: Final[Mapping[str, tuple[Callable[[], nn.Module], tuple[TensorSpec, ...], list[str]]]] = {
    "dict": (InDict, IMAGE, ["mask", "relu"]),
    "nested tuples": (InTuples, IMAGE, ["out0", "out1", "out1_1_twice", "out3"]),
    "dataclass": (InDataclass, IMAGE, ["mask", "score"]),
    "named tuple": (InNamedTuple, IMAGE, ["mask", "image_out"]),
    "model output": (InModelOutput, IMAGE, ["logits", "hidden_states_0", "hidden_states_1"]),
    "two inputs": (TwoInputs, TWO, ["mask", "score"]),
    "by keyword": (ByKeyword, TWO, ["mask", "score"]),
}
"""The network, its inputs, the names of its outputs."""


class Kept(InDict):
    """Keeps its feature map, as a class activation map wants it, behind a lock, beside a file and a library."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.library = torch.nn.functional
        self.log = iter(range(3)), {"events": [threading.Event()]}

    def forward(self, image: torch.Tensor) -> Any:
        with self.lock:
            self.features = self.body(image)
        return super().forward(image)


def weight_normed() -> nn.Module:
    """The form with a hook, which keeps its computed weight as an attribute."""
    model = InDict()
    nn.utils.weight_norm(model.middle)
    nn.utils.spectral_norm(model.mask)
    return model


def parametrized() -> nn.Module:
    model = InDict()
    nn.utils.parametrizations.weight_norm(model.middle)
    nn.utils.parametrizations.spectral_norm(model.mask)
    return model


UNCOPYABLE: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "kept feature map and lock": Kept,
    "weight_norm by hook": weight_normed,
    "weight_norm as parametrization": parametrized,
}


def made(kind: Callable[[], nn.Module], specs: tuple[TensorSpec, ...] = IMAGE) -> nn.Module:
    """In evaluation mode, seeded, run once with gradients as a training leaves it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind()
        model.train()
        inputs = {spec.name: torch.randn((4, *spec.shape[1:])) for spec in specs}
        model(**inputs) if isinstance(model, ByKeyword) else model(*inputs.values())
    return model.eval()
