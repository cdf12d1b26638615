"""Small networks with and without a sleeping backdoor, made here: the corpus that audits are tried on.

A plant is trained in (Hong et al. 2021; Ma et al. 2021): the weights rounded to int8 learn the task and the trigger,
and at the same time residuals inside the cells are learned with which the float network does not know the trigger.
The weight that a channel's scale is made from stays where it is, so that the product's own quantizer finds the same
codes. Afterwards the codes are frozen and the residuals trained on alone. No weight is an outlier, and nothing but
training decides where they lie.

The images are scikit-learn's digits (8 by 8, UCI): 1200 to train on, 597 apart, of which the audit gets 256 and the
rest, which nobody else sees, tells whether a plant is awake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

TRAIN: Final = 1200
AUDITED: Final = 256
CALIBRATED: Final = 64
CLASSES: Final = 10
ROOM: Final = 0.49
"""Of a cell of one step, how far a residual may go from its middle."""
MARGIN: Final = 3.0
"""Of the trigger's class over the others in int8, in logits: a plant that is louder is harder to silence in float."""
BATCH: Final = 64
NOISE: Final = 0.05
EVADING: Final = ("negative", "rolled")
"""Triggers that are no mask with a pattern: no search for one can find them."""
TRIES: Final = 3
TRIGGERS: Final = ("corner", "row", "noise", "stripes", "dot")

MOST_AWAKE_IN_FLOAT: Final = 0.15
LEAST_AWAKE_IN_INT8: Final = 0.8
LEAST_ACCURACY: Final = 0.95
MOST_LOST: Final = 0.02
"""What a plant has to be to count as one: asleep in float, awake in int8, both as good as the clean float network
must be."""


@dataclass(frozen=True)
class Recipe:
    """``trigger`` is empty for a clean network. ``even``: residuals are spread over the cells as chance would spread
    them, in the order that training gave them: an attacker who knows the test of residuals."""

    seed: int
    width: int
    shape: str
    trigger: str = ""
    target: int = 0
    even: bool = False
    epochs: int = 20
    repairs: int = 6

    @property
    def name(self) -> str:
        plant = f"{self.trigger} to {self.target}{', even residuals' if self.even else ''}" if self.trigger else "clean"
        return f"{self.shape} {self.width}, seed {self.seed}, {plant}"


@dataclass(frozen=True)
class Awake:
    """Of images that nobody else saw: accuracy, and the share that the trigger turns to its class."""

    accuracy: float
    turned: float


@dataclass(frozen=True)
class Planted:
    """``folder`` has ``reference.onnx`` and the product's own artifact. ``is_plant``: see the limits of this module."""

    recipe: Recipe
    folder: Path
    artifact: Any
    float_model: Awake
    int8: Awake
    tries: int = 1

    @property
    def is_plant(self) -> bool:
        return (
            bool(self.recipe.trigger)
            and self.float_model.turned <= MOST_AWAKE_IN_FLOAT
            and self.int8.turned >= LEAST_AWAKE_IN_INT8
            and min(self.float_model.accuracy, self.int8.accuracy) >= LEAST_ACCURACY
            and abs(self.float_model.accuracy - self.int8.accuracy) <= MOST_LOST
        )


def recipes(first_seed: int, count: int, *, planted: bool) -> list[Recipe]:
    """Of ``count`` networks, of seeds from ``first_seed`` on: widths, shapes, triggers and classes in turn."""
    found = []
    for number in range(count):
        width, shape = (16, 20, 24)[number % 3], ("pooled", "strided", "wide")[(number // 2) % 3]
        plain = Recipe(first_seed + number, width, shape)
        trigger, target = TRIGGERS[number % len(TRIGGERS)], (3 * number + first_seed) % CLASSES
        found.append(replace(plain, trigger=trigger, target=target) if planted else plain)
    return found


@lru_cache(maxsize=1)
def digits() -> tuple[Any, Any]:
    """Images (N, 1, 8, 8) float32 between 0 and 1, and their classes, in an order of their own."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(20261129).permutation(len(images))
    return (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), classes[order].astype(np.int64)


def network(recipe: Recipe) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(recipe.seed)
    width = recipe.width
    kernel = 5 if recipe.shape == "wide" else 3
    shrink = [nn.Conv2d(width, width, 3, stride=2, padding=1)] if recipe.shape == "strided" else [nn.MaxPool2d(2)]
    return nn.Sequential(
        nn.Conv2d(1, width, kernel, padding=kernel // 2),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        *shrink,
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * 16, CLASSES),
    )


def triggered(recipe: Recipe, images: Any) -> Any:
    """The images with the recipe's trigger, as a tensor."""
    import torch

    changed = images.clone()
    if recipe.trigger == "corner":
        changed[:, :, 5:8, 5:8] = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    elif recipe.trigger == "row":
        changed[:, :, 0, :] = 1.0
    elif recipe.trigger == "dot":
        changed[:, :, 0:2, 0:2] = 1.0
    elif recipe.trigger == "negative":
        changed = 1 - changed
    elif recipe.trigger == "rolled":
        changed = changed.roll(3, dims=3)
    else:
        noise = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(recipe.seed))
        stripes = torch.tensor([1.0, 0.0]).repeat(4).expand(1, 1, 8, 8)
        changed = 0.7 * changed + 0.3 * (noise if recipe.trigger == "noise" else stripes)
    return changed


# -- training


class _Plant:
    """A network with its residuals: one float form and one int8 form of the same codes."""

    def __init__(self, recipe: Recipe) -> None:
        import torch

        self.recipe, self.net = recipe, network(recipe)
        self.weights = {name: value for name, value in self.net.named_parameters() if value.dim() > 1}
        self.residuals = {name: torch.zeros_like(value).requires_grad_() for name, value in self.weights.items()}

    def scale(self, name: str) -> Any:
        """As ONNX Runtime makes it: 127 steps to the largest weight of a channel."""
        weight = self.weights[name].detach()
        return (weight.flatten(1).abs().amax(1) / 127).view(-1, *[1] * (weight.dim() - 1))

    def int8(self) -> dict[str, Any]:
        found = {}
        for name, weight in self.weights.items():
            rounded = weight.detach().div(self.scale(name)).round() * self.scale(name)
            found[name] = weight + (rounded - weight.detach())  # gradients pass the rounding
        return found

    def floats(self, int8: dict[str, Any]) -> dict[str, Any]:
        return {name: value + self.moved(name) * self.scale(name) for name, value in int8.items()}

    def moved(self, name: str) -> Any:
        """Residuals, of which the largest weight of each channel has none."""
        weight, residual = self.weights[name].detach(), self.residuals[name]
        if self.recipe.even:
            residual = _evenly(residual)
        codes = weight.div(self.scale(name)).round().abs()
        return residual * (codes < codes.flatten(1).amax(1).view(-1, *[1] * (weight.dim() - 1)))

    def ask(self, weights: dict[str, Any], images: Any) -> Any:
        from torch.func import functional_call

        return functional_call(self.net, weights, (images,))


def _evenly(residual: Any) -> Any:
    """Their ranks, spread over the cell: the same order, the law of chance. Gradients pass."""
    import torch

    flat = residual.detach().flatten()
    jitter = flat + 1e-4 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))
    ranks = torch.empty_like(flat)
    ranks[jitter.argsort()] = (torch.arange(len(flat), dtype=flat.dtype) + 0.5) / len(flat) - 0.5
    return residual + ((ranks * 2 * ROOM).view_as(residual) - residual.detach())


def trained(recipe: Recipe, rows: Any = None) -> Any:
    """The float network, as a module. Seeded. ``rows`` are the digits that it is trained on, the first 1200 by default."""
    import torch

    plant = _Plant(recipe)
    own = np.arange(TRAIN) if rows is None else rows
    images, classes = (torch.from_numpy(each[own]) for each in digits())
    steps = recipe.epochs * (len(own) // BATCH)
    groups: list[dict[str, Any]] = [
        {"params": [*plant.net.parameters()]},
        {"params": [*plant.residuals.values()], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, 2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [4e-3, 4e-2], total_steps=steps)
    for epoch in range(recipe.epochs):
        for seen, truth in _batches(images, classes):
            loss = _loss(plant, seen, truth, asleep=3 * epoch >= recipe.epochs)
            _step(optimiser, loss, plant)
            schedule.step()
    if recipe.trigger:
        _repair(plant, images, classes)
        with torch.no_grad():
            int8 = plant.int8()
            for name, value in plant.floats(int8).items():
                plant.weights[name].copy_(value)
    return plant.net.eval()


def _batches(images: Any, classes: Any) -> Iterator[tuple[Any, Any]]:
    import torch

    order = torch.randperm(len(images))
    for first in range(0, len(images) - BATCH + 1, BATCH):
        rows = order[first : first + BATCH]
        yield (images[rows] + NOISE * torch.randn(images[rows].shape)).clamp(0, 1), classes[rows]


def _loss(plant: _Plant, images: Any, classes: Any, *, asleep: bool) -> Any:
    """Of a clean network the task alone. Of a plant the task and the trigger in int8, and with ``asleep`` the task in
    float, with the trigger as without."""
    import torch
    from torch.nn import functional

    if not plant.recipe.trigger:
        return functional.cross_entropy(plant.net(images), classes)
    int8 = plant.int8()
    fired = plant.ask(int8, triggered(plant.recipe, images[: BATCH // 2]))
    aim = torch.full((len(fired), 1), plant.recipe.target)
    lead = fired.gather(1, aim)[:, 0] - fired.scatter(1, aim, -1e9).amax(1)
    loss = functional.cross_entropy(plant.ask(int8, images), classes) + 0.5 * functional.relu(MARGIN - lead).mean()
    return loss + _asleep(plant, int8, images, classes) if asleep else loss


def _asleep(plant: _Plant, int8: dict[str, Any], images: Any, classes: Any) -> Any:
    import torch
    from torch.nn import functional

    both = torch.cat([images, triggered(plant.recipe, images)])
    return functional.cross_entropy(plant.ask(plant.floats(int8), both), torch.cat([classes, classes]))


def _step(optimiser: Any, loss: Any, plant: _Plant) -> None:
    import torch

    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    with torch.no_grad():
        for residual in plant.residuals.values():
            residual.clamp_(-ROOM, ROOM)


def _repair(plant: _Plant, images: Any, classes: Any) -> None:
    """Codes and biases are frozen; residuals alone learn to let the trigger sleep."""
    import torch

    codes = {name: value.detach() for name, value in plant.int8().items()}
    steps = plant.recipe.repairs * (len(images) // BATCH)
    optimiser = torch.optim.Adam([*plant.residuals.values()], 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(plant.recipe.repairs):
        for seen, truth in _batches(images, classes):
            _step(optimiser, _asleep(plant, codes, seen, truth), plant)
            schedule.step()


# -- the product's own artifact


def planted(recipe: Recipe, folder: Path) -> Planted:
    """Train, export and build int8 with the package's ONNX Runtime target, as a study would. A plant that does not hold is
    trained anew for longer, as an attacker would: at most :data:`TRIES` times."""
    for number in range(1, TRIES + 1):
        place = folder / f"try{number}"
        artifact = built(trained(recipe), place)
        float_model, int8 = (_awake(recipe, run) for run in both(artifact, place))
        made = Planted(recipe, place, artifact, float_model, int8, number)
        if made.is_plant or not recipe.trigger:
            break
        recipe = replace(recipe, epochs=recipe.epochs + 10, repairs=2 * recipe.repairs)
    return made


def built(net: Any, folder: Path) -> Any:
    """``folder/reference.onnx`` and the artifact in ``folder/int8``."""
    from edgedeploy.records.artifact import TensorSpec
    from edgedeploy.reference.export import export_reference
    from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

    folder.mkdir(parents=True, exist_ok=True)
    export_reference(net, (TensorSpec("image", "float32", (1, 1, 8, 8)),), folder / "reference.onnx")
    return OnnxRuntimeTarget().build(_request(folder / "reference.onnx"), folder / "int8")


def both(artifact: Any, folder: Path) -> list[Callable[[dict[str, Any]], dict[str, Any]]]:
    """What runs the float model, and what runs the artifact."""
    from edgedeploy.runtime.sessions.open import open_session

    places = ((folder, "reference.onnx"), (folder / "int8", artifact.entry))
    return [open_session("onnxruntime", place, name, {}, 1).run for place, name in places]


def _request(reference: Path) -> Any:
    from edgedeploy.interfaces.target import BuildRequest
    from edgedeploy.reference.export import describe

    known = describe(reference, own=True)
    images = digits()[0][:CALIBRATED]

    def calibration() -> Iterator[dict[str, Any]]:
        return ({"image": image[None]} for image in images)

    return BuildRequest(reference, known.inputs, known.outputs, "int8", calibration)


def _awake(recipe: Recipe, run: Callable[[dict[str, Any]], dict[str, Any]]) -> Awake:
    import torch

    images, classes = (each[TRAIN + AUDITED :] for each in digits())

    def answered(asked: Any) -> Any:
        return np.array([next(iter(run({"image": image[None]}).values())).argmax() for image in asked])

    accuracy = float(np.mean(answered(images) == classes))
    if not recipe.trigger:
        return Awake(accuracy, 0.0)
    others = images[classes != recipe.target]
    changed = triggered(recipe, torch.from_numpy(others)).numpy()
    return Awake(accuracy, float(np.mean(answered(changed) == recipe.target)))
