"""A running Flower app: keeps the global model of a round as a file that ``edgedeploy federate`` releases.

In a ServerApp, after each round or at the end::

    from edgedeploy.federated.flower import keep

    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=3)
    keep(result.arrays, "global.safetensors", model)

or as the strategy's ``evaluate_fn``, which Flower calls with the arrays of each round:
``keeping("global.safetensors", model)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import DataError
from edgedeploy.federated.checkpoints import named, packed
from edgedeploy.files import write_atomic

if TYPE_CHECKING:
    from torch import nn


def keep(arrays: Any, path: str | Path, model: nn.Module) -> Path:
    """Write Flower's ``ArrayRecord`` as weights of ``model`` (safetensors), whole or not at all: a reader never sees half of
    a round.

    Records made of a ``state_dict`` go by name, those of a list of arrays by order and shape. Raises ``DataError`` that
    names the first tensor that does not fit, or holds NaN.
    """
    asked, to = "Flower's arrays", Path(path)
    if not isinstance(arrays, Mapping):
        found = f"an ArrayRecord is expected, but got {type(arrays).__name__}"
        raise DataError(asked, found, "Give result.arrays, or what evaluate_fn got")
    values = {str(name): array.numpy() for name, array in arrays.items()}
    write_atomic(to, packed(named(values, model.state_dict(), asked), asked))
    return to


def keeping(path: str | Path, model: nn.Module) -> Callable[[int, Any], None]:
    """An ``evaluate_fn`` for Flower's strategies that keeps each round's model, and evaluates nothing."""

    def keep_round(server_round: int, arrays: Any) -> None:
        keep(arrays, path, model)

    return keep_round
