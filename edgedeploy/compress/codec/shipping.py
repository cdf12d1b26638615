"""A model within a number of bytes: what each weight becomes so that the answers change least."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgedeploy.compress.codec.coded import Coded, Codes, Numbers, Stepped, aside, is_weight, stepped
from edgedeploy.compress.codec.container import Packed, to_bytes
from edgedeploy.compress.codec.curvature import Curvature, curvatures, matrix_of, weights_of
from edgedeploy.compress.codec.rounding import STEP_OF_RATE, Cost, Floats, cost_of, rounded
from edgedeploy.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn

TRIES: Final = 7
SHORT_OF: Final = 0.005
"""Of the bytes that are allowed: what may be left free."""

LARGEST_CODE: Final = 63
"""Finer steps help nobody, and their table of frequencies is longer than what it codes."""

FEWEST_BITS: Final = 1.0
"""A weight, below which nothing is promised."""


@dataclass(frozen=True)
class Layer:
    """A layer's weights, and what errors in them cost."""

    module: Any
    weight: Any
    cost: Cost

    @property
    def log_cost(self) -> Floats:
        """log2 of what a squared error costs, in the shape of the weight."""
        import torch

        each = np.log2(self.cost.outputs)[:, None] + np.log2(self.cost.columns)[None, :]
        return np.asarray(weights_of(self.module, torch.from_numpy(each), tuple(self.weight.shape)).numpy())


def within(model: nn.Module, batches: Iterable[Any], most_bytes: int, seed: int) -> Packed:
    """The weights of ``model`` in at most ``most_bytes``. ``batches`` are inputs that it is used on.

    Raises ``Unsupported`` where that would leave less than a bit a weight, or cannot be had.
    """
    return priced(model, batches, most_bytes, seed)[0]


def priced(model: nn.Module, batches: Iterable[Any], most_bytes: int, seed: int) -> tuple[Packed, float]:
    """As :func:`within`, with the price of a bit: an update of the release is made at the same."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    count = sum(array.size for array in arrays.values() if is_weight(array))
    if 8 * most_bytes < FEWEST_BITS * count:
        found = f"{most_bytes} bytes for {count} weights"
        raise Unsupported("weights in so few bytes", found, f"Allow {math.ceil(FEWEST_BITS * count / 8)} at least")
    layers = layers_of(model, curvatures(model, batches, seed))
    price, step, best = _first_price(layers), 8.0, None
    for _ in range(TRIES):
        packed = at_price(arrays, layers, price)
        size_bytes = len(to_bytes(packed))
        if size_bytes <= most_bytes and (best is None or size_bytes > best[0]):
            best = size_bytes, packed, price
        if best is not None and best[0] >= (1 - SHORT_OF) * most_bytes:
            break
        bits = 8 * (size_bytes - (1 - SHORT_OF / 2) * most_bytes) / max(1, count)
        price *= 2.0 ** float(np.clip(2.2 * bits, -step, step))
    if best is None:
        raise Unsupported("weights in so few bytes", f"{size_bytes} bytes came nearest to {most_bytes}", "Allow more")
    return best[1], best[2]


def layers_of(model: nn.Module, found: Mapping[str, Curvature]) -> dict[str, Layer]:
    """By the name of the weight, of layers whose weights are worth a code."""
    modules = dict(model.named_modules())
    made = {}
    for name, one in found.items():
        module = modules[name]
        if is_weight(module.weight.detach().numpy()):
            made[f"{name}.weight"] = Layer(module, module.weight.detach(), cost_of(one.reads, one.outputs))
    return made


def _first_price(layers: Mapping[str, Layer]) -> float:
    """At which a step is about half of a layer's standard deviation, in the middle layer."""
    if not layers:
        return 1.0
    logs = [float(one.log_cost.mean()) + 2 * math.log2(float(one.weight.std()) / 2) for one in layers.values()]
    return float(2.0 ** np.median(logs)) / STEP_OF_RATE


def following(model: nn.Module, batches: Iterable[Any], before: Packed, price: float, seed: int) -> Packed:
    """The next release of a model, packed so that its update from ``before`` is short: on the same steps, and near its
    codes where the difference is not worth its bits."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return at_price(arrays, layers_of(model, curvatures(model, batches, seed)), price, before)


def at_price(
    arrays: Mapping[str, Numbers], layers: Mapping[str, Layer], price: float, before: Packed | None = None
) -> Packed:
    """Every weight at the price of a bit; what has no layer that is known, by a quarter of its standard deviation. The
    steps of a release ``before`` stay, and its codes are what is expected."""
    old: Mapping[str, Coded] = before.arrays if before else {}
    return Packed({name: _coded(name, array, layers.get(name), price, old.get(name)) for name, array in arrays.items()})


def _coded(name: str, array: Numbers, layer: Layer | None, price: float, before: Coded | None) -> Coded:
    if not is_weight(array):
        # the variances of a norm that is not folded span decades, and the small ones would become nothing
        return aside(array, bits=16 if name.endswith("running_var") else 8)
    if layer is None:
        return stepped(array, max(float(array.std()) / 4, 1e-12))
    if isinstance(before, Stepped) and before.quarters is not None and before.shape == array.shape:
        return _rounded(array, layer, price, before, before.codes.reshape(array.shape))
    return compensated(array, layer, price)


def compensated(array: Numbers, layer: Layer, price: float) -> Stepped:
    """Whole numbers of steps that follow the layer's curvature by output and input."""
    logs = layer.log_cost
    middle = float(logs.mean())
    quarters = [_quarters(logs.mean(tuple(a for a in range(logs.ndim) if a != axis)) - middle) for axis in (0, 1)]
    base = math.sqrt(STEP_OF_RATE * price / 2.0**middle)
    empty = Stepped(array.shape, np.array([base], np.float32), np.zeros(0, np.int64), (quarters[0], quarters[1]))
    largest = float(np.abs(array / empty.grid).max())
    if largest > LARGEST_CODE:
        empty = replace(empty, steps=np.array([base * largest / LARGEST_CODE], np.float32))
    return _rounded(array, layer, price, empty, None)


def _rounded(array: Numbers, layer: Layer, price: float, steps: Stepped, prior: Codes | None) -> Stepped:
    """``array`` on the steps of ``steps``; ``prior`` are codes in its shape."""
    import torch

    grid = np.broadcast_to(steps.grid.astype(np.float64), array.shape).copy()
    matrix = matrix_of(layer.module, torch.from_numpy(array.astype(np.float64))).numpy()
    sides = matrix_of(layer.module, torch.from_numpy(grid)).numpy()
    expected = None if prior is None else matrix_of(layer.module, torch.from_numpy(prior.copy())).numpy()
    codes = rounded(matrix, sides, layer.cost, price, expected)
    back = weights_of(layer.module, torch.from_numpy(codes), array.shape).numpy()
    return replace(steps, codes=back.reshape(-1).astype(np.int64))


def _quarters(logs: Floats) -> Any:
    """Exponents of steps for logarithms of costs: a step is inverse to the root."""
    return np.clip(np.rint(-2 * logs), -60, 60).astype(np.int8)
